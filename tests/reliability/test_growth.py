"""It does not grow: 20,000 training steps and 2,000 edits with memory, files, threads and shared memory flat.

Memory is what the process and its workers have to themselves (USS); its slope after the first fifth is the median over all
pairs of measurements (Theil and Sen), which a transient peak does not move.
"""

import csv
from pathlib import Path

import pytest
import soundfile
from diary import lines
from fit_tools import WINDOW
from processes import ROOT, Command
from random_folders import tiny_flags
from scipy.stats import theilslopes
from shard_tools import RATE, tone, write_shards

NAME = "It does not grow"
MOST = 1.0
"""MB per 1,000 steps or edits."""


def check(path: Path, promise, what: str) -> None:
    held = lines(path)
    held = held[len(held) // 5 :]
    slope = 1000 * theilslopes([line["megabytes"] for line in held], [line["count"] for line in held]).slope
    flat = {name: (held[0][name], max(line[name] for line in held)) for name in ("files", "threads", "processes")}
    shared = max(line["shared"] for line in held) - held[0]["shared"]
    promise(
        NAME, bool(slope <= MOST), 1, what, f"{slope:+.3f} MB per 1,000, {held[-1]['megabytes']:.0f} MB; "
        + ", ".join(f"{name} {first} to {most}" for name, (first, most) in flat.items()) + f", shared memory {shared:+} bytes",
    )  # fmt: skip
    assert slope <= MOST
    assert all(most <= first + 2 for first, most in flat.values()), flat
    assert shared <= 2**20


def train(folder: Path, steps: int, every: int) -> None:
    write_shards(folder, 40, 10, "train")
    write_shards(folder, 2, 2, "validation", first=50)
    run = Command(
        [
            "fit", "--config", ROOT / "configs/base.yaml", "--config", ROOT / "tests/reliability/fit.yaml",
            *tiny_flags(WINDOW), *(f"--data.{split}_shards={folder}/{split}-*.tar" for split in ("train", "validation")),
            "--data.batch_size=1", "--data.num_workers=1", f"--trainer.default_root_dir={folder}",
            f"--trainer.max_steps={steps}", f"--trainer.val_check_interval={max(10, steps // 20)}", "--trainer.log_every_n_steps=50",
            "--trainer.callbacks+=diary.Meter", f"--trainer.callbacks.init_args.path={folder}/meter.jsonl",
            f"--trainer.callbacks.init_args.every={every}",
        ],
        folder / "log.txt",
    )  # fmt: skip
    assert run.wait(7200) == 0, run.output[-3000:]


def edit(folder: Path, edits: int, every: int) -> None:
    soundfile.write(folder / "a.wav", tone(1.0), RATE)
    with open(folder / "edits.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [("id", "audio", "prompt", "seed"), *((f"e{i}", "a.wav", "a violin", i) for i in range(edits))]
        )
    run = Command(
        [
            "predict", "--config", ROOT / "configs/predict.yaml", *tiny_flags(WINDOW), "--model.adapter=null",
            "--trainer.accelerator=cpu", f"--data.manifest={folder}/edits.csv", f"--data.output={folder}/edits",
            "--data.num_inference_steps=1", "--data.batch_size=2", "--trainer.callbacks+=diary.Meter",
            f"--trainer.callbacks.init_args.path={folder}/meter.jsonl", f"--trainer.callbacks.init_args.every={every}",
        ],
        folder / "log.txt",
    )  # fmt: skip
    assert run.wait(7200) == 0, run.output[-3000:]
    assert len(list((folder / "edits").glob("*.wav"))) == edits


@pytest.mark.slow
def test_training_does_not_grow(tmp_path: Path, promise) -> None:
    train(tmp_path, 20_000, every=200)
    check(tmp_path / "meter.jsonl", promise, "of 20,000 steps")


@pytest.mark.slow
def test_editing_does_not_grow(tmp_path: Path, promise) -> None:
    edit(tmp_path, 2_000, every=20)
    check(tmp_path / "meter.jsonl", promise, "of 2,000 edits")
