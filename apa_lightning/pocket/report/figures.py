"""What a report on the pocket backbone is made of: held-out clips, figures with intervals, linear probes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Clips:
    """Held-out clips of one length.

    Attributes:
        waveform: (N, S) at 16 kHz. keys, prompts: N of each. labels: N lists of AudioSet names.
        metadata: the renderer's JSON of each clip (``kind``, ``instrument``, ``genre``, ``melody``, ``texture``, ``notes``);
            empty for recordings.
    """

    waveform: Tensor
    keys: list[str]
    prompts: list[str] = field(default_factory=list)
    labels: list[list[str]] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    sample_rate: int = 16_000

    def __len__(self) -> int:
        return len(self.keys)

    def where(self, wanted: Callable[[dict[str, Any]], bool]) -> "Clips":
        """The clips whose metadata ``wanted`` accepts."""
        return self.take([i for i, fields in enumerate(self.metadata) if wanted(fields)])

    def take(self, chosen: Sequence[int]) -> "Clips":
        """The clips with these numbers, in this order."""

        def pick(rows: list) -> list:
            return [rows[i] for i in chosen] if rows else []

        return Clips(
            self.waveform[list(chosen)], pick(self.keys), pick(self.prompts), pick(self.labels), pick(self.metadata)
        )


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Attributes:
        part: "vae", "vocoder", "clap", ... name: what was measured, with its unit.
        value, low, high: mean and 95 % interval. clips: number of clips or items behind it.
        untrained: the same figure of the same class with random weights, None where it has no meaning.
        beside: another figure to compare with, by name ("shuffled pairs", "Griffin-Lim").
        target: what is to be reached, as text such as "<= 0.35", or "low > 0" for the interval's lower end; empty where there
            is none.
    """

    part: str
    name: str
    value: float
    low: float
    high: float
    clips: int
    untrained: float | None = None
    beside: dict[str, float] = field(default_factory=dict)
    target: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if not self.target:
            return None
        *end, sign, bound = self.target.split()
        if end:
            return self.low > float(bound)
        return self.value <= float(bound) if sign == "<=" else self.value >= float(bound)


def bootstrap_excess(
    more: np.ndarray, less: np.ndarray, seed: int = 0, draws: int = 2000
) -> tuple[float, float, float]:
    """Relative excess of the mean of ``more`` over that of ``less``, and its interval over resampled pairs."""
    rows = np.random.default_rng(seed).integers(len(more), size=(draws, len(more)))
    excesses = more[rows].mean(axis=1) / less[rows].mean(axis=1) - 1
    return (
        float(more.mean() / less.mean() - 1),
        float(np.percentile(excesses, 2.5)),
        float(np.percentile(excesses, 97.5)),
    )


def probe(
    features: np.ndarray, labels: Sequence[Any], groups: Sequence[Any], folds: int = 5, strength: float = 1.0
) -> np.ndarray:
    """A linear probe: logistic regression on standardised features, cross-validated so that no group is on both sides.

    Args:
        features: (N, D). labels: N classes. groups: N names, such as melodies; rows of one name stay together.
        folds: parts of the cross-validation. strength: inverse of the L2 penalty.

    Returns:
        (N,) of 0 and 1: whether each row's class was read right by the probe that had not seen its group.
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


def draw_mels(path: Path, rows: dict[str, Sequence[Tensor]], titles: Sequence[str]) -> None:
    """A picture of log-mels (T, F): one named row per kind, one column per clip.

    All mels of a column share one colour scale.
    """
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=(4 * len(titles), 2.2 * len(rows)), layout="constrained")
    grid = canvas.subplots(len(rows), len(titles), squeeze=False)
    for column, title in enumerate(titles):
        shown = [torch.as_tensor(mels[column]) for mels in rows.values()]
        low, high = min(float(m.min()) for m in shown), max(float(m.max()) for m in shown)
        for axis, (name, mel) in zip(grid[:, column], zip(rows, shown, strict=True), strict=True):
            axis.imshow(mel.T.numpy(), origin="lower", aspect="auto", vmin=low, vmax=high, cmap="magma")
            axis.set_title(f"{name}: {title}", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=90)
