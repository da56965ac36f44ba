"""Scores of a report: means with intervals, the same of an untrained part, and targets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from apa_lightning.utils.bootstrap import DRAWS, Interval, bootstrap

Values = Sequence[float] | np.ndarray | torch.Tensor


@dataclass(frozen=True)
class Score:
    """One measured score."""

    part: str  # The part that is measured: "vae", "vocoder", "clap", ...
    name: str  # The quantity, with its unit
    value: float  # Mean over clips
    low: float  # Lower end of its 95 % interval
    high: float  # Upper end of its 95 % interval
    clips: int  # Number of clips or items
    untrained: float | None = None  # The same score of the same class with random weights; None where it has no meaning
    # Scores to compare with, by name ("shuffled pairs", "Griffin-Lim")
    compared: dict[str, float] = field(default_factory=dict)
    # The goal, as text such as "<= 0.35", or "low > 0" for the interval's lower end; empty where there is none
    target: str = ""

    @classmethod
    def of(
        cls, part: str, name: str, values: Values, seed: int, untrained: Values | float | None = None, **more: Any
    ) -> "Score":
        """The score of one value per clip.

        Args:
            part: The part that is measured.
            name: The quantity, with its unit.
            values: One value per clip.
            seed: Seed of the interval.
            untrained: The value, or the values, of an untrained part.
            **more: ``compared`` and ``target``.
        """
        if untrained is not None and not isinstance(untrained, float):
            untrained = float(np.mean(np.asarray(untrained)))
        return cls(part, name, *bootstrap(np.asarray(values), seed), len(values), untrained, **more)

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if not self.target:
            return None
        *end, sign, bound = self.target.split()
        if end:
            return self.low > float(bound)
        return self.value <= float(bound) if sign == "<=" else self.value >= float(bound)


def mean(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def bootstrap_excess(more: np.ndarray, less: np.ndarray, seed: int = 0) -> Interval:
    """Relative excess of the mean of ``more`` over that of ``less``, and its interval over resampled pairs."""
    rows = np.random.default_rng(seed).integers(len(more), size=(DRAWS, len(more)))
    excesses = more[rows].mean(axis=1) / less[rows].mean(axis=1) - 1
    low, high = (float(np.percentile(excesses, end)) for end in (2.5, 97.5))
    return Interval(float(more.mean() / less.mean() - 1), low, high)
