"""Seams: how abruptly an edit changes where new sound meets what is kept, against how abruptly its source changes anyway.

The jump at a place is that between the 100 ms before it and the 100 ms after it: the difference of their levels, and the mean
difference of their mel bands once both have one level, in dB. Of a joint the largest jump within its cross-fade counts, of the
source the largest within a stretch as long.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from apa_lightning.audio import resample
from apa_lightning.metrics.comparison import Clip, EditedClip
from apa_lightning.metrics.edit_metric import EditMetric

SIDE, STEP, MOST_STEPS = 0.1, 0.01, 10  # s, s, and number of steps within one cross-fade
BANDS, LOWEST_HZ = 32, 50.0
#: Where levels end: below the clip's loudest 100 ms, and that of a band below the level of all.
QUIET_DB, EMPTY_DB = 60.0, 40.0
#: Number of places in the source, evenly spread.
PLACES = 200


class Jumps(NamedTuple):
    """Jumps in dB at N places of a clip: of the ``level`` (N,) and of the ``spectrum`` (N,)."""

    level: np.ndarray
    spectrum: np.ndarray


class Seams(NamedTuple):
    """The jumps at an edit's joints (J,), and at the places of its source (P,) that they are compared with."""

    joints: Jumps
    usual: Jumps


def jumps(waveform: Tensor, sample_rate: int, starts: Sequence[float], seconds: float) -> Jumps:
    """The largest jumps of a waveform (S,) within ``seconds`` from each start, in seconds; those without 100 ms at either side are left out."""
    side, length = round(SIDE * sample_rate), round(seconds * sample_rate)
    first = torch.tensor([round(start * sample_rate) for start in starts], dtype=torch.long)
    first = first[(first >= side) & (first + length + side <= len(waveform))]
    if not len(first):
        return Jumps(np.zeros(0), np.zeros(0))
    steps = min(MOST_STEPS, max(1, round(seconds / STEP)))
    places = first[:, None] + torch.linspace(0, length, steps + 1).round().long()
    stretches = waveform.detach().float().cpu().unfold(0, side, 1)
    loudest = _powers(stretches[::side], sample_rate).sum(dim=-1).max()
    before, after = (_powers(stretches[places + offset], sample_rate) for offset in (-side, 0))
    level = _decibels(after.sum(dim=-1), loudest, QUIET_DB) - _decibels(before.sum(dim=-1), loudest, QUIET_DB)
    spectrum = _shape(after) - _shape(before)
    return Jumps(level.abs().amax(dim=1).numpy(), spectrum.abs().mean(dim=-1).amax(dim=1).numpy())


def seams(edited: Clip, source: Clip, joints: Sequence[tuple[float, float]]) -> Seams:
    """The jumps at joints, each from start to end of its cross-fade in seconds of the edit, all of one length."""
    starts, seconds = [start for start, _ in joints], joints[0][1] - joints[0][0]
    rate = edited.sample_rate
    places = np.linspace(SIDE, len(source.waveform) / source.sample_rate - SIDE - seconds, PLACES).tolist()
    usual = jumps(resample(source.waveform, source.sample_rate, rate), rate, places, seconds)
    return Seams(jumps(edited.waveform, rate, starts, seconds), usual)


class SeamLevel(EditMetric):
    """Jump of the level in dB at the joints of regions and extensions, above the mean jump of the source, averaged over clips.

    This project's own. 0: no more abrupt than the recording is anywhere; a splice onto a steady sound of half the amplitude: 6.
    The row of ``no_op`` holds what the source itself has at the same places.
    """

    name = "seam_level"
    title = "seam level dB"
    higher_is_better = False
    why_missing = "no edit has a region or an extension"

    def score(self, edit: EditedClip) -> float:
        """Mean over the joints of :func:`seams`; NaN without one."""
        return _above_usual(edit, "level")


class SeamSpectrum(EditMetric):
    """The same of the spectrum at equal level: mean difference of 32 mel bands in dB."""

    name = "seam_spectrum"
    title = "seam spectrum dB"
    higher_is_better = False
    why_missing = SeamLevel.why_missing

    def score(self, edit: EditedClip) -> float:
        """Mean over the joints of :func:`seams`; NaN without one."""
        return _above_usual(edit, "spectrum")


def _above_usual(edit: EditedClip, name: str) -> float:
    if not edit.joints:
        return float("nan")
    at_joints, usual = (getattr(one, name) for one in seams(edit.edited, edit.source, edit.joints))
    return float(at_joints.mean() - usual.mean()) if len(at_joints) and len(usual) else float("nan")


def _powers(stretches: Tensor, sample_rate: int) -> Tensor:
    """Power in mel bands (..., M) of stretches (..., S)."""
    spectrum = torch.fft.rfft(stretches * torch.hann_window(stretches.shape[-1])).abs().square()
    bands = melscale_fbanks(spectrum.shape[-1], LOWEST_HZ, sample_rate / 2, BANDS, sample_rate)
    return spectrum @ bands


def _decibels(power: Tensor, reference: Tensor, depth: float) -> Tensor:
    return 10 * (power / reference.clamp(min=1e-20)).clamp(min=10 ** (-depth / 10)).log10()


def _shape(powers: Tensor) -> Tensor:
    """Levels of bands (..., M) in dB below the level of all."""
    return _decibels(powers, powers.sum(dim=-1, keepdim=True), EMPTY_DB)
