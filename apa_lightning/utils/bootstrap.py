"""Means with 95 % intervals, from bootstrap resampling of clips or of whole sources."""

import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

DRAWS = 2000


class Interval(NamedTuple):
    """A mean and its 95 % interval; all NaN where there is nothing to average."""

    mean: float
    low: float
    high: float


UNKNOWN = Interval(np.nan, np.nan, np.nan)


def resampled(statistic: Callable[[np.ndarray], np.ndarray], count: int, seed: int = 0) -> Interval:
    """A statistic of ``count`` sources, and the 2.5th and 97.5th percentile of its values for resampled sources.

    Args:
        statistic: Function of numbers of sources (..., N) that returns (...); NaN for a draw without a value.
        count: Number of sources.
        seed: Seed of the draws.
    """
    everything = np.arange(count)
    mean = float(statistic(everything))
    if count < 2:
        return Interval(mean, mean, mean)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", stats.DegenerateDataWarning
        )  # about its own interval, where a draw has no value
        found = stats.bootstrap(
            (everything,),
            lambda numbers, axis: statistic(np.moveaxis(numbers, axis, -1)),
            n_resamples=DRAWS,
            vectorized=True,
            method="percentile",
            rng=np.random.default_rng(seed),
        )
    low, high = np.nanpercentile(found.bootstrap_distribution, [2.5, 97.5])
    return Interval(mean, float(low), float(high))


def bootstrap(values: Sequence[float] | np.ndarray, seed: int = 0) -> Interval:
    """Mean of one value per clip; its interval resamples clips.

    NaN stands for a clip that could not be measured and is left out.
    """
    every = np.asarray(values, dtype=np.float64)
    known = every[~np.isnan(every)]
    return resampled(lambda numbers: known[numbers].mean(axis=-1), len(known), seed) if len(known) else UNKNOWN


def bootstrap_by_source(values: Sequence[float] | np.ndarray, sources: Sequence[str], seed: int = 0) -> Interval:
    """Mean of one value per edit; its interval resamples whole sources, because edits of one recording are not independent.

    Args:
        values: One value per edit; NaN is left out.
        sources: For each edit, the recording that it was made from.
        seed: Seed of the draws.
    """
    every, names = np.asarray(values, dtype=np.float64), np.asarray(sources)
    known = every[~np.isnan(every)]
    if not len(known):
        return UNKNOWN
    _, number = np.unique(names[~np.isnan(every)], return_inverse=True)
    sums, counts = np.bincount(number, known), np.bincount(number)
    return resampled(lambda drawn: sums[drawn].sum(axis=-1) / counts[drawn].sum(axis=-1), len(sums), seed)


def means_by_source(values: np.ndarray, sources: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
    """The means of several values per edit, as a function of the sources that are drawn: a part of a statistic for :func:`resampled`.

    Args:
        values: K values per edit (N, K); NaN is left out.
        sources: For each edit, the recording that it was made from.

    Returns:
        A function of numbers of sources (..., S) that returns means (..., K) over their edits; NaN where there are none.
    """
    _, number = np.unique(sources, return_inverse=True)
    members = (number == np.arange(number.max() + 1)[:, None]).astype(np.float64)  # (sources, N)
    sums, counts = members @ np.nan_to_num(values), members @ ~np.isnan(values)

    def means(drawn: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            return sums[drawn].sum(axis=-2) / counts[drawn].sum(axis=-2)

    return means
