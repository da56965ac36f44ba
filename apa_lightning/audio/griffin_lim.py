"""Griffin-Lim: from log-mels to sound without a trained vocoder (Griffin and Lim 1984; momentum: Perraudin et al. 2013)."""

from functools import cache

import torch
from torch import Tensor

from apa_lightning.audio import MelSpec, mel_basis
from apa_lightning.errors import InputError

MOMENTUM = 0.99
SILENT = 1e-6
"""Magnitude that a bin begins with at least: from nothing, no factor leads anywhere."""


def griffin_lim(
    log_mel: Tensor, spec: MelSpec = MelSpec(), iterations: int = 32, seed: int = 0, start: Tensor | None = None
) -> Tensor:
    """Waveforms whose log-mels are near the given ones.

    Runs on the CPU. The phases to begin with are random, by ``seed`` alone, so that a clip sounds the same in every batch; or
    those of ``start``: a vocoder's waveforms, whose phases and fine structure are kept while each mel band's level is put
    right, in far fewer iterations.

    Args:
        log_mel: Natural log of Slaney mel magnitudes (B, T, F), as :func:`apa_lightning.audio.log_mel` makes them.
        spec: Their geometry.
        iterations: Of the phase, with momentum 0.99.
        seed: Of random phases.
        start: Waveforms (B, T * hop_length) of about these log-mels.

    Returns:
        waveform (B, T * hop_length) float32.

    Raises:
        InputError: ``log_mel`` or ``start`` has another shape, or ``iterations`` is below 1.
    """
    if log_mel.ndim != 3 or log_mel.shape[-1] != spec.num_mels:
        raise InputError(f"log_mel: has shape {tuple(log_mel.shape)}; give (B, T, F) with {spec.num_mels} bins.")
    if iterations < 1:
        raise InputError(f"iterations: {iterations}; give at least 1.")
    wanted = (len(log_mel), log_mel.shape[1] * spec.hop_length)
    if start is not None and start.shape != wanted:
        raise InputError(f"start: has shape {tuple(start.shape)}; give waveforms {wanted}.")
    mels, waveforms = log_mel.detach().float().cpu(), []
    for i, mel in enumerate(mels):
        if start is None:
            magnitude = magnitudes(mel[None], spec)[0]
            turns = _uniform(torch.Size([spec.n_fft // 2 + 1, len(mel) + 1]), seed)
            phases = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
        else:
            spectrum = _stft(start[i].detach().float().cpu(), spec)
            magnitude = magnitudes(mel[None], spec, start=spectrum.abs().T[None, :-1])[0]
            phases = torch.sgn(spectrum)
        # log_mel drops the last of the frames that a centred STFT has
        waveforms.append(_iterate(torch.cat([magnitude, magnitude[-1:]]).T, phases, spec, iterations))
    return torch.stack(waveforms)


def _iterate(magnitude: Tensor, phases: Tensor, spec: MelSpec, iterations: int) -> Tensor:
    """A waveform (T * hop_length,) of STFT magnitudes (K, T + 1), from the phases given as unit complex numbers."""
    length, last = (magnitude.shape[1] - 1) * spec.hop_length, torch.zeros((), dtype=phases.dtype)
    for _ in range(iterations):
        consistent = _stft(_istft(magnitude * phases, spec, length), spec)
        phases, last = torch.sgn(consistent.sub(last, alpha=MOMENTUM / (1 + MOMENTUM))), consistent
    return _istft(magnitude * phases, spec, length)


def _uniform(shape: torch.Size, seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@cache
def _window(size: int) -> Tensor:
    return torch.hann_window(size, dtype=torch.float32)


def _stft(waveform: Tensor, spec: MelSpec) -> Tensor:
    return torch.stft(waveform, spec.n_fft, spec.hop_length, window=_window(spec.n_fft), return_complex=True)


def _istft(spectrum: Tensor, spec: MelSpec, length: int) -> Tensor:
    return torch.istft(spectrum, spec.n_fft, spec.hop_length, window=_window(spec.n_fft), length=length)


def magnitudes(log_mel: Tensor, spec: MelSpec = MelSpec(), iterations: int = 32, start: Tensor | None = None) -> Tensor:
    """Non-negative STFT magnitudes (B, T, n_fft // 2 + 1) whose log-mels are near ``log_mel`` (B, T, F).

    Multiplicative updates for the Kullback-Leibler divergence (Lee and Seung 2001). They weigh relative errors, as a
    logarithm does: within 0.001 of the log-mels of music, where librosa's least squares are off by 0.08.

    Args:
        log_mel: Natural log of Slaney mel magnitudes.
        spec: Their geometry.
        iterations: Number of updates.
        start: Magnitudes (B, T, n_fft // 2 + 1) to begin near, whose structure within the mel bands is kept in part: their
            geometric mean with the bands spread evenly, where it begins by default. A vocoder's structure is right about half
            the way; so begun it comes nearer than from either alone.
    """
    filters, _ = mel_basis(spec, log_mel.device)
    mel, spread = log_mel.exp(), filters.T / filters.sum(dim=1).clamp(min=1e-8)
    magnitude = mel @ spread
    if start is not None:
        magnitude = (magnitude * start).sqrt().clamp(min=SILENT)
    for _ in range(iterations):
        magnitude = magnitude * ((mel / (magnitude @ filters).clamp(min=1e-12)) @ spread)
    return magnitude
