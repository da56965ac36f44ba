"""Waveforms: mono, resampling, length and level."""

import math
from collections.abc import Sequence

import numpy as np
import soxr
import torch
import torchaudio
from torch import Tensor

CANCELLED = 0.1
"""A mean of the channels at less than this share of their level (-20 dB) is what is left of channels that cancel."""


def channels_cancel(waveform: Tensor) -> bool:
    """Whether the mean of the channels (C, S) is next to nothing: one has the opposite polarity of the other."""
    return bool(waveform.mean(dim=0).square().mean() < CANCELLED**2 * waveform.square().mean())


def extremes(waveform: Tensor) -> tuple[float, float]:
    """The smallest and the largest sample, 0 where there are none; NaN where a sample is. Much faster than a look at each sample."""
    low, high = waveform.aminmax() if waveform.numel() else (0.0, 0.0)
    return float(low), float(high)


def to_mono(waveform: Tensor) -> Tensor:
    """Mean over channels, or the loudest one where they cancel: (C, S) or (S,) -> (S,)."""
    if waveform.ndim == 1:
        return waveform
    if len(waveform) == 1:
        return waveform[0]
    if channels_cancel(waveform):
        return waveform[waveform.square().mean(dim=1).argmax()]
    return waveform.mean(dim=0)


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Band-limited resampling of the last axis: (..., S) -> (..., about S * to / from).

    torchaudio's filter grows with the square of a ratio's terms, gigabytes for 8001 to 16000 Hz: such rates go to soxr.
    """
    common = math.gcd(from_rate, to_rate)
    if from_rate // common * (to_rate // common) <= 1_000_000:
        return torchaudio.functional.resample(waveform, from_rate, to_rate)
    length = math.ceil(waveform.shape[-1] * (to_rate / from_rate))
    rows = [soxr.resample(row, from_rate, to_rate) for row in waveform.reshape(-1, waveform.shape[-1]).cpu().numpy()]
    resampled = torch.from_numpy(np.stack(rows)).to(waveform)
    return fit_length(resampled, length).reshape(*waveform.shape[:-1], length)


def fit_length(waveform: Tensor, samples: int) -> Tensor:
    """Zero-pad or cut the end of the last axis to ``samples``."""
    return torch.nn.functional.pad(waveform, (0, samples - waveform.shape[-1]))


def real_parts(waveform: Tensor, lengths: Sequence[int] | None) -> list[Tensor]:
    """Each item of (B, S) without its padding."""
    if lengths is None:
        return list(waveform)
    return [item[: min(length, len(item))] for item, length in zip(waveform, lengths, strict=True)]


def normalize_level(waveform: Tensor, peak: float = 0.5, lengths: Sequence[int] | None = None) -> Tensor:
    """Remove the DC offset of each item of (B, S) and scale it to ``peak``; the VAE expects 0.5. Padding stays zero."""
    result = torch.zeros_like(waveform)
    for row, item in zip(result, real_parts(waveform, lengths), strict=True):
        centred = item - item.mean()
        row[: len(item)] = centred / (centred.abs().amax() + 1e-8) * peak
    return result
