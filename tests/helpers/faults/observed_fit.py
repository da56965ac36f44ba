"""A small fit under observation, its uninterrupted twin, and what differs between the two."""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from diary import differences, lines
from fit_tools import WINDOW
from processes import ROOT, Command
from random_folders import scratch, tiny_flags
from shard_tools import write_shards

INTERVAL = 5
"""Batches from one validation, and checkpoint, to the next."""


@cache
def shards() -> Path:
    """22 clips to train on: eleven batches an epoch; four to validate."""
    folder = scratch() / "resume-shards"
    write_shards(folder, 22, 6, "train")
    write_shards(folder, 4, 4, "validation", first=30)
    return folder


@dataclass(frozen=True)
class Fit:
    """A run of 30 steps, or as ``settings`` say; see fit.yaml."""

    workers: int = 0
    ranks: int = 1
    settings: tuple[str, ...] = ()

    def arguments(self, folder: Path, *more: object) -> list[object]:
        data = [f"--data.{split}_shards={shards()}/{split}-*.tar" for split in ("train", "validation")]
        return [
            "fit", "--config", ROOT / "configs/base.yaml", "--config", ROOT / "tests/reliability/fit.yaml",
            *tiny_flags(WINDOW), *data, f"--data.num_workers={self.workers}", f"--trainer.default_root_dir={folder}",
            "--trainer.callbacks+=diary.Diary", f"--trainer.callbacks.init_args.path={folder}/diary.jsonl",
            *self.settings, *more,
        ]  # fmt: skip

    def start(
        self,
        folder: Path,
        *more: object,
        before: Callable[[], object] = lambda: None,
        environment: Mapping[str, str] | None = None,
        log: str = "log.txt",
    ) -> Command:
        return Command(self.arguments(folder, *more), folder / log, self.ranks, environment, before)


@cache
def undisturbed(fit: Fit) -> tuple[Path, float]:
    """The folder of a run that was left alone, and how long it took."""
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    start = time.monotonic()
    run = fit.start(folder)
    assert run.wait() == 0, run.output
    return folder, time.monotonic() - start


def check_continued(
    fit: Fit,
    folder: Path,
    saved: bool,
    command: tuple[str, ...] = ("--ckpt_path=last",),
    environment: Mapping[str, str] | None = None,
    start: Callable[..., Command] = Fit.start,
) -> str:
    """Continue a run that was ended: what differs from one that was left alone, "" if nothing does.

    Compared are keys, loss and weights of every batch, the loss of every validation, and in the end all of ``last.ckpt``.

    Args:
        fit: the run. folder: where it was ended.
        saved: it was asked to end and saved its state: no batch may come twice; else those since the last checkpoint may.
        command: what is said beside the run's settings to continue it. environment: likewise.
        start: starts it, elsewhere than the run that was left alone.
    """
    whole, _ = undisturbed(fit)
    diaries = ["diary.jsonl", *(f"diary.jsonl-rank{rank}" for rank in range(1, fit.ranks))]
    earlier = [lines(folder / name) for name in diaries]
    resumed = start(fit, folder, *command, environment=environment, log="log-1.txt")
    if resumed.wait() != 0:
        return f"the continuation fails: {resumed.output[-1500:]}"
    for name, before in zip(diaries, earlier, strict=True):
        truth, after = {place(line): line for line in lines(whole / name)}, lines(folder / name)[len(before) :]
        reached = max((line["batch"] for line in before if "batch" in line), default=-1)
        first = min((line["batch"] for line in after if "batch" in line), default=reached + 1)
        if reached - first + 1 > (0 if saved else INTERVAL + (3 if fit.settings else 0)):
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


def last(folder: Path) -> dict:
    """Of the newest run: one that was killed before its first checkpoint has none, and another begins beside it."""
    newest = max((folder / "lightning_logs").glob("version_*/checkpoints/last.ckpt"))
    return torch.load(newest, weights_only=True)


def place(line: dict) -> tuple[str, int]:
    """Which training batch, or which validation, a line of the diary is about."""
    kind = "batch" if "batch" in line else "validated"
    return kind, line[kind]


def bomb(hook: str, step: int, how: int | str) -> list[str]:
    """Settings of the fit by which it ends itself in this hook of this step."""
    arguments = {"hook": hook, "step": step, "how": how}
    return [
        "--trainer.callbacks+=diary.Bomb",
        *(f"--trainer.callbacks.init_args.{k}={v}" for k, v in arguments.items()),
    ]
