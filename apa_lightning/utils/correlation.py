"""Pearson's correlation of two curves, where there is one."""

import numpy as np


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two curves (N,); NaN with fewer than two values or where one does not vary."""
    if len(first) < 2 or not np.ptp(first) or not np.ptp(second):
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])
