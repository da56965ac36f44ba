"""Sample-exact resume: a fit that is ended anywhere and continued equals one that was left alone, bit for bit.

Compared are the keys, loss and weights of every step, the loss of every validation, and in the end the whole of
``last.ckpt``: adapter, optimizer, loops, EMA, place in the data.
"""

import random
import signal
import tempfile
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from diary import differences, in_a_write, lines, on_event
from fit_tools import WINDOW
from processes import ROOT, Command
from random_folders import scratch, tiny_flags
from shard_tools import write_shards

NAME = "Sample-exact resume"
INTERVAL = 5
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


@cache
def shards() -> Path:
    """22 clips to train on: eleven batches an epoch; four to validate."""
    folder = scratch() / "resume-shards"
    write_shards(folder, 22, 6, "train")
    write_shards(folder, 4, 4, "validation", first=30)
    return folder


def fit(
    folder: Path, workers: int, *more: object, before: Callable[[], object] = lambda: None, number: int = 0
) -> Command:
    data = [f"--data.{split}_shards={shards()}/{split}-*.tar" for split in ("train", "validation")]
    arguments = [
        "fit", "--config", ROOT / "configs/base.yaml", "--config", ROOT / "tests/reliability/fit.yaml",
        *tiny_flags(WINDOW), *data, f"--data.num_workers={workers}", f"--trainer.default_root_dir={folder}",
        "--trainer.callbacks+=diary.Diary", f"--trainer.callbacks.init_args.path={folder}/diary.jsonl", *more,
    ]  # fmt: skip
    return Command(arguments, folder / f"log-{number}.txt", before=before)


@cache
def undisturbed(workers: int, *more: str) -> tuple[Path, float]:
    """The folder of a run that was left alone, and how long it took."""
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    start = time.monotonic()
    run = fit(folder, workers, *more)
    assert run.wait() == 0, run.output
    return folder, time.monotonic() - start


def last(folder: Path) -> dict:
    """Of the newest run: one that was killed before its first checkpoint has none, and another begins beside it."""
    newest = max((folder / "lightning_logs").glob("version_*/checkpoints/last.ckpt"))
    return torch.load(newest, weights_only=True)


def place(line: dict) -> tuple[str, int]:
    """Which training batch, or which validation, a line of the diary is about."""
    kind = "batch" if "batch" in line else "validated"
    return kind, line[kind]


def check_continued(folder: Path, workers: int, saved: bool, *more: str) -> str:
    """What differs between a run that was ended and its continuation, and one that was left alone; "" if nothing does.

    Args:
        folder: of the run.
        workers: of the undisturbed run.
        saved: the run was asked to end and saved its state: no step may come twice.
        more: settings of both.
    """
    whole, _ = undisturbed(workers, *more)
    truth = {place(line): line for line in lines(whole / "diary.jsonl")}
    before = lines(folder / "diary.jsonl")
    reached = max((line["batch"] for line in before if "batch" in line), default=-1)
    resumed = fit(folder, workers, *more, "--ckpt_path=last", number=1)
    if resumed.wait() != 0:
        return f"the continuation fails: {resumed.output[-1500:]}"
    after = lines(folder / "diary.jsonl")[len(before) :]
    first = min((line["batch"] for line in after if "batch" in line), default=reached + 1)
    if reached - first + 1 > (0 if saved else INTERVAL + (3 if more else 0)):
        return f"batch {reached} was done and the run continued with batch {first}"
    if wrong := [line for line in before + after if line != truth.get(place(line))]:
        return f"another line: {wrong[0]} and not {truth.get(place(wrong[0]))}"
    if missing := truth.keys() - {place(line) for line in before + after}:
        return f"missing: {sorted(missing)}"
    ours, theirs = last(folder), last(whole)
    for states in (ours, theirs):  # the only thing that may differ: the folder's name
        for state in states["callbacks"].values():
            for name in [name for name in state if "path" in name or name == "best_k_models"]:
                del state[name]
    if different := list(differences(ours, theirs)):
        return f"last.ckpt differs in {different}"
    leftovers = [str(path) for path in folder.rglob("*") if ".tmp" in path.name or path.name.endswith("-v1.ckpt")]
    return f"left behind: {leftovers}" if leftovers else ""


def bomb(hook: str, step: int, how: int | str) -> list[str]:
    arguments = {"hook": hook, "step": step, "how": how}
    return [
        "--trainer.callbacks+=diary.Bomb",
        *(f"--trainer.callbacks.init_args.{k}={v}" for k, v in arguments.items()),
    ]


ACCUMULATED = ("--trainer.accumulate_grad_batches=4", "--trainer.max_steps=15")
#: name: (more arguments, what to do in the process before the command).
NAMED: dict[str, tuple[list[str], Callable[[], object]]] = {
    "last.ckpt half written": ([], partial(in_a_write, ".tmp.ckpt", 6, 20_000)),
    "last.ckpt written, not renamed": ([], partial(on_event, "os.rename", "last.ckpt", 3, KILL)),
    "best checkpoint written, not renamed": ([], partial(on_event, "os.rename", "step=15.ckpt", 1, KILL)),
    "best checkpoint about to be pruned": ([], partial(on_event, "os.remove", "step=5.ckpt", 1, KILL)),
    "adapter.safetensors not renamed": ([], partial(on_event, "os.rename", "adapter.safetensors", 2, KILL)),
    "in a validation": (bomb("on_validation_batch_end", 20, int(KILL)), lambda: None),
    "asked to stop in a validation": (bomb("on_validation_batch_start", 20, int(TERM)), lambda: None),
    "first batch of an epoch": (bomb("on_train_batch_start", 11, int(KILL)), lambda: None),
    "last batch of an epoch": (bomb("on_train_batch_end", 22, int(KILL)), lambda: None),
    "between gradients and weights": (bomb("on_before_optimizer_step", 17, int(KILL)), lambda: None),
    "asked to stop between gradients and weights": (bomb("on_before_optimizer_step", 17, int(TERM)), lambda: None),
    "asked to stop in the last batch of an epoch": (bomb("on_train_batch_end", 22, int(INT)), lambda: None),
    "asked to stop where a validation is due": (bomb("on_train_batch_end", 25, int(TERM)), lambda: None),
    "while gradients accumulate": (bomb("on_before_zero_grad", 7, int(KILL)), lambda: None),
    "asked to stop while gradients accumulate": (bomb("on_before_zero_grad", 7, int(TERM)), lambda: None),
    "asked to stop in a validation while gradients accumulate": (
        bomb("on_validation_batch_start", 8, int(TERM)),
        lambda: None,
    ),
    "exception in a step": (bomb("on_before_zero_grad", 33, "exception"), lambda: None),
    "asked to stop in the last validation": (bomb("on_validation_batch_start", 50, int(TERM)), lambda: None),
}
FAST = ("asked to stop in a validation",)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NAMED]
)
def test_ended_at_a_named_moment(name: str, workers: int, tmp_path: Path, promise) -> None:
    arguments, before = NAMED[name]
    more = ACCUMULATED if "accumulate" in name else ()
    run = fit(tmp_path, workers, *more, *arguments, before=before)
    ended = run.wait() != 0 or "last validation" in name  # there it finishes: nothing would be left to continue
    difference = (
        check_continued(tmp_path, workers, "asked" in name, *more) if ended else f"it was not ended: {run.output}"
    )
    promise(NAME, not difference, 1, "named moments")
    assert not difference


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("number", range(40))
def test_ended_at_a_random_moment(number: int, workers: int, tmp_path: Path, promise) -> None:
    """Moments from the first second to the last, by kill -9 mostly."""
    draw = random.Random(f"{number} {workers}")
    _, seconds = undisturbed(workers)
    how = draw.choice([KILL, KILL, TERM, INT])
    run = fit(tmp_path, workers)
    time.sleep(draw.uniform(0.1, 1.0) * seconds)
    run.kill(how)
    code = run.wait()
    difference = check_continued(tmp_path, workers, saved=False)
    promise(NAME, not difference, 1, "random moments")
    assert not difference, f"{how!r} ended with {code}"
