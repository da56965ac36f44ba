"""Same order whatever the machine: the samples of each step depend on (seed, epoch) alone, not on ranks or workers."""

from pathlib import Path

import pytest
from diary import lines
from fit_tools import WINDOW
from observed_fit import shards
from processes import ROOT, Command
from random_folders import tiny_flags

NAME = "Same order whatever the machine"
LAYOUTS = [(ranks, workers) for ranks in (1, 2) for workers in (0, 1, 2)]
STEPS = 11
"""Two epochs of 22 clips in steps of four: 5.5 steps each, so that an epoch ends inside a step."""


def fit(folder: Path, ranks: int, workers: int, steps: int = STEPS, *more: str) -> None:
    arguments = [
        "fit", "--config", ROOT / "configs/base.yaml", *tiny_flags(WINDOW), f"--data.train_shards={shards()}/train-*.tar",
        "--data.validation_shards=null", f"--data.batch_size={4 // ranks}", f"--data.num_workers={workers}",
        "--trainer.accelerator=cpu", f"--trainer.max_steps={steps}", f"--trainer.default_root_dir={folder}",
        "--trainer.callbacks=null", "--trainer.callbacks+=callbacks.LastCheckpoint",
        "--trainer.callbacks+=diary.Keys", f"--trainer.callbacks.init_args.path={folder}/keys.jsonl",
        "--trainer.enable_progress_bar=false", "--trainer.val_check_interval=null", *more,
    ]  # fmt: skip
    run = Command(arguments, folder / "log.txt", ranks)
    assert run.wait() == 0, run.output[-3000:]


def order(folder: Path) -> list[list[str]]:
    """The keys of each step, as they lie in the global order: rank 0's first, rank 1's first, rank 0's second, ..."""
    steps: dict[int, dict[int, list[str]]] = {}
    for line in lines(folder / "keys.jsonl"):
        steps.setdefault(line["number"], {})[line["rank"]] = line["keys"]
    return [
        [key for keys in zip(*(ranks[r] for r in sorted(ranks)), strict=True) for key in keys]
        for ranks in steps.values()
    ]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> list[list[str]]:
    folder = tmp_path_factory.mktemp("order")
    fit(folder, 1, 0)
    found = order(folder)
    sequence = [key for step in found for key in step]
    first, second = sequence[:22], sequence[24:]  # the sixth step is filled up with what the second epoch begins with
    assert len(found) == STEPS and len(set(first)) == 22 and first[: len(second)] != second
    return found


@pytest.mark.parametrize(
    ("ranks", "workers"), [pytest.param(*layout, marks=[pytest.mark.slow] * (layout != (2, 1))) for layout in LAYOUTS]
)
def test_every_layout_trains_on_the_same_samples(ranks: int, workers: int, expected, tmp_path: Path, promise) -> None:
    fit(tmp_path, ranks, workers)
    ok = order(tmp_path) == expected
    promise(NAME, ok, 1, "layouts")
    assert ok


@pytest.mark.slow
@pytest.mark.parametrize("steps", [4, 6])  # in the middle of an epoch, and where one ends inside a step
@pytest.mark.parametrize("before", [(1, 0), (1, 2), (2, 1)])
@pytest.mark.parametrize("after", [(1, 1), (2, 0), (2, 2)])
def test_a_run_goes_on_with_another_layout(before, after, steps: int, expected, tmp_path: Path, promise) -> None:
    fit(tmp_path, *before, steps)
    fit(tmp_path, *after, STEPS, "--ckpt_path=last")
    ok = order(tmp_path) == expected
    promise(NAME, ok, 1, "changes of layout in a resume")
    assert ok, order(tmp_path)
