"""Random draws and limits that the composer's modules share."""

import random
from typing import TypeVar

Choice = TypeVar("Choice")


def weighted(rng: random.Random, weights: dict[Choice, float]) -> Choice:
    """Draw one key of `weights` with the chance that its value gives it."""
    return rng.choices(list(weights), list(weights.values()))[0]


def clipped_gauss(rng: random.Random, deviation: float, most: float) -> float:
    """Draw from a normal distribution around 0, clipped to -`most` .. `most`."""
    return min(max(rng.gauss(0, deviation), -most), most)


def rounded(value: float, low: int, high: int) -> int:
    """The nearest whole number, limited to `low` .. `high`."""
    return min(max(round(value), low), high)
