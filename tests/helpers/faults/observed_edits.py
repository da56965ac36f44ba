"""A small predict, evaluate and sweep, what each gives when it is left alone, and how another run of it differs."""

import csv
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fit_tools import WINDOW
from processes import ROOT, Command
from random_folders import scratch, tiny_backbone, tiny_flags
from recordings import tone

from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone

THREADS = {"OMP_NUM_THREADS": "1"}
TIMED = ("timings", "finished", "mtime_ns")
"""Fields of a result's line, and the columns of its table that begin so, that tell when and how fast it was made."""


@cache
def songs() -> Path:
    """Three recordings named by their instruments; the last is longer than the model's window."""
    folder = scratch() / "songs"
    for name, seconds, frequency in (("piano_0", 0.6, 440), ("erhu_1", 0.6, 330), ("acoustic_guitar_0", 1.5, 220)):
        tone(folder / f"{name}.wav", seconds, frequency)
    return folder


@cache
def adapter() -> Path:
    path = scratch() / "edits-adapter.safetensors"
    AudioLDM2Backbone.from_pretrained(tiny_backbone(WINDOW)).new_adapter(None).save(path)
    return path


@cache
def manifest() -> Path:
    """Six edits in batches of two; one batch has a single one."""
    path = scratch() / "edits.csv"
    audio = ("piano_0", "erhu_1", "acoustic_guitar_0", "piano_0", "acoustic_guitar_0", "erhu_1", "piano_0")
    names = ("harp", "flute", "organ", "cello", "violin", "horn", "oboe")
    lines = [f"{name},{songs()}/{of}.wav,{name} solo" for name, of in zip(names, audio, strict=True)]
    path.write_text("\n".join(["id,audio,prompt", *lines]) + "\n")
    return path


@dataclass(frozen=True)
class Edits:
    """A run of ``predict``, ``evaluate`` or ``sweep``."""

    command: str

    def arguments(self, folder: Path) -> list[object]:
        shared = [
            *tiny_flags(WINDOW), f"--model.adapter={adapter()}", f"--data.output={folder}", "--data.num_inference_steps=1",
            "--data.batch_size=2",
        ]  # fmt: skip
        if self.command == "predict":
            return [
                "predict", "--config", ROOT / "configs/predict.yaml", *shared, f"--data.manifest={manifest()}",
                "--trainer.accelerator=cpu",
            ]  # fmt: skip
        grid = ["--data.grid={ap_scale: [0.2]}"] if self.command == "sweep" else []
        return [
            self.command, "--config", ROOT / "configs/evaluate.yaml", "--config", ROOT / "configs/tasks/timbre.yaml", *shared,
            "--device=cpu",
            f"--data.sources={songs()}", "--data.num_sources=2", "--data.systems=[adapter,no_op]", *grid,
        ]  # fmt: skip

    def start(
        self, folder: Path, ranks: int = 1, before: Callable[[], object] = lambda: None, log: str = "log.txt"
    ) -> Command:
        """Run it into ``folder``/out; its log is beside."""
        return Command(self.arguments(folder / "out"), folder / log, ranks, THREADS, before)


@cache
def undisturbed(edits: Edits, ranks: int = 1) -> tuple[Path, float]:
    """The output folder of a run that was left alone, and how long it took."""
    folder = Path(tempfile.mkdtemp(dir=scratch()))
    start = time.monotonic()
    run = edits.start(folder, ranks)
    assert run.wait() == 0, run.output
    return folder / "out", time.monotonic() - start


def difference(edits: Edits, folder: Path) -> str:
    """What differs in an output folder from one run that was left alone, "" if nothing does.

    Both hold the same files with the same bytes, and no others: temporary ones, or notes of what is being made. The lines of
    results.jsonl and their table may come in another order, and tell other times.
    """
    whole, _ = undisturbed(edits)
    ours, theirs = contents(folder), contents(whole)
    if ours.keys() != theirs.keys():
        return f"left: {sorted(ours.keys() - theirs.keys())}, missing: {sorted(theirs.keys() - ours.keys())}"
    return f"different: {different}" if (different := [name for name in ours if ours[name] != theirs[name]]) else ""


def contents(folder: Path) -> dict[str, object]:
    """What every file holds: bytes, or of the records what does not tell times."""
    table = "results.csv" if not (folder / "edits.csv").exists() else "edits.csv"
    found: dict[str, object] = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name == "results.jsonl":
            found[name] = sorted(map(json.dumps, map(_untimed, map(json.loads, path.read_text().splitlines()))))
        elif name == table:
            with open(path, encoding="utf-8-sig", newline="") as file:
                found[name] = sorted(map(json.dumps, map(_untimed, csv.DictReader(file))))
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def _untimed(record: dict) -> dict:
    return {name: value for name, value in record.items() if not name.startswith(TIMED)}


def written(folder: Path) -> dict[str, int]:
    """When every file of sound and of measures, and results.jsonl, were written."""
    paths = [path for kind in ("*.wav", "*.npz", "*.jsonl") for path in folder.rglob(kind)]
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in paths}


# --- ends that need a look inside -------------------------------------------------------------------------------------


def in_a_line(count: int) -> None:
    """Kill this process when 100 bytes of the ``count``-th line of results.jsonl have reached the disk: the system stops
    the write there, and the program is about to take the piece back."""
    left = [count + 1]  # the file is opened once before the first

    def hook(name: str, arguments: tuple) -> None:
        if name == "open" and str(arguments[0]).endswith("results.jsonl") and arguments[2] & os.O_APPEND:
            left[0] -= 1
            if left[0] == 0:
                end = os.stat(arguments[0]).st_size + 100
                resource.setrlimit(resource.RLIMIT_FSIZE, (end, resource.RLIM_INFINITY))
        if name == "os.truncate" and left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_mending() -> None:
    """Kill this process when it is about to cut off half a line."""
    sys.addaudithook(lambda name, _: os.kill(os.getpid(), signal.SIGKILL) if name == "os.truncate" else None)
