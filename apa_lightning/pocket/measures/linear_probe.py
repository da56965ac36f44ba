"""A linear probe: the share of rows whose class can be read linearly from their features."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def probe(
    features: np.ndarray, labels: Sequence[Any], groups: Sequence[Any], folds: int = 5, strength: float = 1.0
) -> np.ndarray:
    """Logistic regression from features (N, D) to N classes, cross-validated: rows of one group stay together.

    Features are standardized; ``strength`` is the inverse of the L2 penalty.

    Returns:
        (N,) of 0 and 1: 1 where the probe that had not seen the row's group predicts its class.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classes = np.asarray(labels)
    right = np.zeros(len(classes))
    for train, test in GroupKFold(folds).split(features, classes, groups):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        model.fit(features[train], classes[train])
        right[test] = model.predict(features[test]) == classes[test]
    return right
