"""Means over clips: the state of all metrics that give one figure per clip or per pair of clips.

A clip that cannot be measured is left out, counted in ``skipped`` and named in a warning; with no clip left the mean is
NaN, never a made-up number.
"""

import logging
import math
from collections.abc import Sequence, Sized

import torch
from torch import Tensor
from torchmetrics import Metric

from apa_lightning.editing.request import MIN_SECONDS, SILENCE_PEAK
from apa_lightning.errors import InputError

log = logging.getLogger(__name__)

Waveforms = Tensor | Sequence[Tensor]


class ClipMean(Metric):
    """Mean of one figure per clip; subclasses add figures in ``update``.

    The state is sums, so that processes with different numbers of clips agree; it stays out of checkpoints. They are in
    float32, because not every device has float64.

    Attributes:
        total: sum of the figures.
        rest: what rounding has left out of ``total``.
        clips: number of clips in ``total``.
        skipped: number of clips that could not be measured.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    rest: Tensor
    clips: Tensor
    skipped: Tensor

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name in ("total", "rest"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")
        for name in ("clips", "skipped"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """The mean as a scalar, NaN without clips."""
        return (self.total + self.rest) / self.clips

    def _add(self, clip: int, value: float) -> None:
        if math.isfinite(value):
            exact = float(self.total) + float(self.rest) + value
            self.total = self.total.new_tensor(exact)
            self.rest = self.rest.new_tensor(exact - float(self.total))
            self.clips += 1
        else:
            self._leave_out(clip, "figure is not finite")

    def _leave_out(self, clip: int, why: str) -> None:
        log.warning("%s: clip %d of the batch is left out: its %s.", type(self).__name__, clip, why)
        self.skipped += 1

    def _usable(self, clip: int, sample_rate: int, **waveforms: Tensor) -> bool:
        """Whether all ``waveforms`` (S,) can be measured; if not, it is counted and said why."""
        for name, waveform in waveforms.items():
            if why := unmeasurable(waveform, sample_rate):
                self._leave_out(clip, f"{name} {why}")
                return False
        return True


def unmeasurable(waveform: Tensor, sample_rate: int) -> str:
    """Why a waveform (S,) cannot be measured, as the end of a sentence; empty if it can."""
    if waveform.ndim != 1:
        raise InputError(
            f"waveform: has shape {tuple(waveform.shape)}; give mono clips (S,), or a batch of them (B, S)."
        )
    if len(waveform) < MIN_SECONDS * sample_rate:
        return f"lasts {len(waveform) / sample_rate:.2f} s, less than {MIN_SECONDS} s"
    if not torch.isfinite(waveform).all():
        return "contains NaN or infinite samples"
    return "is digital silence" if float(waveform.abs().max()) < SILENCE_PEAK else ""


def check_pairs(first: Sized, second: Sized, names: str) -> None:
    if len(first) != len(second):
        raise InputError(f"{names}: {len(first)} and {len(second)} items; give as many of both.")


class SourceMean(ClipMean):
    """Mean over pairs of an edited clip and its source of the figure that a subclass gives."""

    def figure(self, edited: Tensor, source: Tensor, sample_rate: int) -> float:
        """The figure of one pair of waveforms (S,); NaN where there is none."""
        raise NotImplementedError

    def update(self, edited: Waveforms, source: Waveforms, sample_rate: int) -> None:
        """Add pairs of clips.

        Args:
            edited, source: (B, S), or B waveforms (S,) of any length.
            sample_rate: of both, in Hz.
        """
        check_pairs(edited, source, "edited and source")
        for i, (one, other) in enumerate(zip(edited, source, strict=True)):
            if self._usable(i, sample_rate, edited=one, source=other):
                self._add(i, self.figure(one, other, sample_rate))
