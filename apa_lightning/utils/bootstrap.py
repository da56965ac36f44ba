"""Means with intervals: what a figure over clips may be read as, and whether two systems differ on the same clips."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 2000


class Interval(NamedTuple):
    """A mean and its 95 % interval; all NaN where there is nothing to average."""

    mean: float
    low: float
    high: float


def bootstrap(values: Sequence[float] | np.ndarray, seed: int = 0, draws: int = DRAWS) -> Interval:
    """Mean of one value per clip, and the 2.5th and 97.5th percentile of the means of resampled clips.

    NaN stands for a clip that could not be measured and is left out.
    """
    every = np.asarray(values, dtype=np.float64)
    known = every[~np.isnan(every)]
    if not len(known):
        return Interval(np.nan, np.nan, np.nan)
    means = known[np.random.default_rng(seed).integers(len(known), size=(draws, len(known)))].mean(axis=1)
    return Interval(float(known.mean()), float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5)))


def bootstrap_by_source(
    values: Sequence[float] | np.ndarray, sources: Sequence[str], seed: int = 0, draws: int = DRAWS
) -> Interval:
    """As :func:`bootstrap`, but whole sources are resampled: several edits of one recording are no independent clips.

    Args:
        values: one per edit; NaN is left out. sources: of as many edits, the recording each was made from.
    """
    every, names = np.asarray(values, dtype=np.float64), np.asarray(sources)
    known = every[~np.isnan(every)]
    if not len(known):
        return Interval(np.nan, np.nan, np.nan)
    _, number = np.unique(names[~np.isnan(every)], return_inverse=True)
    sums, counts = np.bincount(number, known), np.bincount(number)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(draws, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return Interval(float(known.mean()), float(np.percentile(means, 2.5)), float(np.percentile(means, 97.5)))
