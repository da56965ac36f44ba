"""Systems compared where they are recognized equally often: each is a front of operating points, not one of them."""

from collections.abc import Callable, Sequence

import numpy as np

from apa_lightning.pocket.report.edit_trials import Outcome
from apa_lightning.utils.bootstrap import Interval, means_by_source, resampled


def best_at(level: np.ndarray | float, reached: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The highest score of a front where another score is at least ``level``.

    Between two operating points lies their mixture, which edits a share of the trials at the one and the others at the other:
    both of its scores are interpolated linearly.

    Args:
        level: The level (...).
        reached: What the K operating points reach of the score that ``level`` binds, (..., K).
        scores: Their scores (..., K).

    Returns:
        Scores (...); NaN where no point reaches the level.
    """
    level = np.asarray(level)[..., None]
    enough = reached >= level
    best = np.where(enough, scores, -np.inf).max(axis=-1)
    crossing = ~enough[..., :, None] & enough[..., None, :]  # from a point below the level to one at or above it
    step = np.where(crossing, reached[..., None, :] - reached[..., :, None], 1)
    share = (level[..., None] - reached[..., :, None]) / step
    mixed = scores[..., :, None] + share * (scores[..., None, :] - scores[..., :, None])
    best = np.maximum(best, np.where(crossing, mixed, -np.inf).max(axis=(-2, -1)))
    return np.where(enough.any(axis=-1), best, np.nan)


def means_of(outcomes: Sequence[Outcome], field: str, tunes: Sequence[str]) -> Callable[[np.ndarray], np.ndarray]:
    """The mean of one score at each operating point, as a function of the tunes that are drawn."""
    return means_by_source(np.column_stack([getattr(outcome, field) for outcome in outcomes]), tunes)


def at_level(
    outcomes: Sequence[Outcome], reached: str, level: float, field: str, tunes: Sequence[str], seed: int
) -> Interval:
    """The best mean of ``field`` on a front where the mean of ``reached`` is at least ``level``; NaN if it never is."""
    levels, scores = (means_of(outcomes, name, tunes) for name in (reached, field))
    return resampled(lambda drawn: best_at(level, levels(drawn), scores(drawn)), len(set(tunes)), seed)


def above_at_equal_recognition(
    ours: Sequence[Outcome], other: Sequence[Outcome], field: str, tunes: Sequence[str], seed: int
) -> Interval:
    """A score of our front less that of the other one, where both are recognized as often as our first point is.

    A front that is never recognized so often is taken where it is recognized most, which favors it. The fronts were made by
    the same trials and noise; every draw of tunes finds the level and both scores anew, so that the interval is that of
    pairs. Equal fronts differ by exactly 0.
    """
    (recognized, scores), (others, other_scores) = (
        [means_of(outcomes, name, tunes) for name in ("recognized", field)] for outcomes in (ours, other)
    )

    def difference(drawn: np.ndarray) -> np.ndarray:
        reached, other_reached = recognized(drawn), others(drawn)
        level = reached[..., 0]
        theirs = best_at(np.minimum(level, other_reached.max(axis=-1)), other_reached, other_scores(drawn))
        return best_at(level, reached, scores(drawn)) - theirs

    return resampled(difference, len(set(tunes)), seed)
