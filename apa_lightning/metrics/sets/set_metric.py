"""The base of the distances between two sets of embeddings, those of edits and those of reference recordings."""

import logging
import math
from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from apa_lightning.errors import InputError
from apa_lightning.metrics.comparison import Clip, Waveforms
from apa_lightning.metrics.edit_metric import Encoders
from apa_lightning.metrics.sets.embeddings import AudioEmbedding

log = logging.getLogger(__name__)


class SetScore(NamedTuple):
    """A distance between two sets.

    Attributes:
        value: The distance; NaN where there is none.
        why: Why there is none, with the numbers that are needed and that are there; otherwise empty.
        low: 2.5th percentile; NaN where there is no interval.
        high: 97.5th percentile; NaN where there is no interval.
        fit: Points (1/n, distance) that a line was fitted to.
        slope: Slope of that line, which meets ``value`` at 1/n = 0.
    """

    value: float
    why: str = ""
    low: float = math.nan
    high: float = math.nan
    fit: tuple[tuple[float, float], ...] = ()
    slope: float = math.nan

    @classmethod
    def none(cls, why: str) -> "SetScore":
        """No distance, and why."""
        return cls(math.nan, why)


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
    """A distance between the embeddings of edits and of reference recordings; a subclass defines :meth:`distance`.

    Args:
        embedding: What clips are compared in (see :func:`load_embedding`); None means the run's own.

    Attributes:
        name: Name of the metric in ``set_metrics.json``.
        title: Name of the metric in tables and plots.
        edited: List of embeddings (N, D).
        reference: List of embeddings (N, D).
        skipped: Number of clips that could not be measured.
    """

    name: str = ""
    title: str = ""
    higher_is_better = False

    is_differentiable = False
    full_state_update = False

    edited: list[Tensor]
    reference: list[Tensor]
    skipped: Tensor

    def __init__(self, embedding: AudioEmbedding | None = None, **kwargs):
        super().__init__(**kwargs)
        self.embedding = embedding
        self.add_state("skipped", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        for name in ("edited", "reference"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    @staticmethod
    @abstractmethod
    def distance(edited: Tensor, reference: Tensor) -> SetScore:
        """The distance between embeddings (N, D) and (M, D), with the reason where there is none."""

    def connect(self, encoders: Encoders) -> None:
        """Take the run's embedding, unless the metric has its own."""
        self.embedding = self.embedding or encoders.embedding

    def update(self, clips: Waveforms, sample_rate: int, real: bool) -> None:
        """Add clips.

        Args:
            clips: Waveforms (B, S), or B waveforms (S,) of any length.
            sample_rate: Sample rate in Hz.
            real: Whether they are reference recordings; edits otherwise (as torchmetrics' FrechetInceptionDistance has it).
        """
        for i, waveform in enumerate(clips):
            if why := Clip(waveform, sample_rate).problem:
                log.warning("%s: clip %d of the batch is left out: it %s.", type(self).__name__, i, why)
                self.skipped += 1
            else:
                values = self._embedding(waveform, sample_rate).detach().float().to(self.device)
                (self.reference if real else self.edited).append(values)

    def compute(self) -> Tensor:
        """The distance as a scalar; NaN, with a warning that says why, where there is none."""
        found = self.distance(*(_joined(state) for state in (self.edited, self.reference)))
        if found.why:
            log.warning("%s: %s.", type(self).__name__, found.why)
        return torch.tensor(found.value, device=self.device)

    def reset(self) -> None:
        """Forget all clips."""
        super().reset()
        if self.embedding is not None:  # a process without clips gathers a matrix too, of no rows
            for name in ("edited", "reference"):
                setattr(self, name, [torch.zeros(0, self.embedding.dimension, device=self.device)])

    @property
    def _embedding(self) -> AudioEmbedding:
        if self.embedding is None:
            raise InputError(f"embedding: {type(self).__name__} has none; give one of `load_embedding`.")
        return self.embedding


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    return state if isinstance(state, Tensor) else torch.cat(state)
