"""Length of the measurements: ``tiny`` for tests, ``quick`` for a first look, ``full`` for the table."""

from dataclasses import dataclass, replace
from pathlib import Path

__all__ = ["Scale", "full", "quick", "replace", "tiny"]


@dataclass(frozen=True)
class Scale:
    """Sizes of the work.

    Attributes:
        pairs: Runs of each side.
        steps: Denoising steps of an exact edit.
        edits: Recordings in a folder.
        train_steps: Training steps in a run.
        clips: Clips in the loader's shards.
        work: Folder for recordings and shards.
        today: Source tree of the state to compare with.
        large: Folder of an AudioLDM2-large with random weights, if its questions are asked too.
    """

    pairs: int
    steps: int
    edits: int
    train_steps: int
    clips: int
    work: Path
    today: Path
    large: Path | None = None


def tiny(work: Path, today: Path) -> Scale:
    """Shows that a program works."""
    return Scale(1, 1, 1, 1, 4, work, today)


def quick(work: Path, today: Path) -> Scale:
    """Ten minutes of two quiet cores."""
    return Scale(3, 10, 4, 16, 256, work, today)


def full(work: Path, today: Path) -> Scale:
    """An hour of two quiet cores."""
    return Scale(7, 50, 24, 24, 1024, work, today)
