"""Distances between two sets of embeddings, those of the edits and those of reference recordings: what they share."""

import logging
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from apa_lightning.errors import InputError
from apa_lightning.metrics.clip_mean import Waveforms, unmeasurable
from apa_lightning.metrics.sets.embeddings import AudioEmbedding

log = logging.getLogger(__name__)


class SetFigure(NamedTuple):
    """A distance between two sets.

    Attributes:
        value: NaN where there is none. why: then why, with the numbers that are needed and that are there.
        low, high: 2.5th and 97.5th percentile; NaN where there is no interval.
        fit: points (1/n, distance) that a line was laid through. slope: of that line, which meets ``value`` at 1/n = 0.
    """

    value: float
    why: str = ""
    low: float = float("nan")
    high: float = float("nan")
    fit: tuple[tuple[float, float], ...] = ()
    slope: float = float("nan")

    @classmethod
    def none(cls, why: str) -> "SetFigure":
        """No figure, and why."""
        return cls(float("nan"), why)


def check_sets(edited: Tensor, reference: Tensor) -> None:
    """Raise InputError unless the two are embeddings (N, D) and (M, D)."""
    if edited.ndim != 2 or reference.ndim != 2 or edited.shape[1] != reference.shape[1]:
        raise InputError(
            f"embeddings: shapes {tuple(edited.shape)} of the edits and {tuple(reference.shape)} of the reference; give "
            "(N, D) and (M, D) of one embedding."
        )


def too_few(needed: int, what: str, **sets: int) -> str:
    """Why ``what`` cannot be had from so many embeddings (by the names of their ``sets``); empty if it can."""
    if min(sets.values()) >= needed:
        return ""
    there = " and ".join(f"{count} of the {name}" for name, count in sets.items())
    return f"{what} needs {needed} embeddings; there are {there}"


class SetMetric(Metric):
    """A distance between the embeddings of edits and of reference recordings; subclasses keep them in ``_take``.

    Args:
        embedding: what clips are compared in.

    Attributes:
        skipped: number of clips that could not be measured.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    skipped: Tensor

    def __init__(self, embedding: AudioEmbedding, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding
        self.add_state("skipped", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, clips: Waveforms, sample_rate: int, real: bool) -> None:
        """Add clips.

        Args:
            clips: (B, S), or B waveforms (S,) of any length.
            sample_rate: in Hz.
            real: whether they are reference recordings; edits otherwise (as torchmetrics' FrechetInceptionDistance has it).
        """
        for i, waveform in enumerate(clips):
            if why := unmeasurable(waveform, sample_rate):
                log.warning("%s: clip %d of the batch is left out: it %s.", type(self).__name__, i, why)
                self.skipped += 1
            else:
                self._take(self.embedding(waveform, sample_rate), real)

    def figure(self) -> SetFigure:
        """The distance between what has been added on this process, with the reason where there is none."""
        raise NotImplementedError

    def compute(self) -> Tensor:
        """The distance as a scalar; NaN, with a warning that says why, where there is none."""
        figure = self.figure()
        if figure.why:
            log.warning("%s: %s.", type(self).__name__, figure.why)
        return torch.tensor(figure.value, device=self.device)

    def _take(self, embeddings: Tensor, real: bool) -> None:
        raise NotImplementedError
