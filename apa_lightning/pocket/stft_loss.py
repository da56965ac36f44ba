"""Multi-resolution STFT loss and spectral distances of waveforms."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

PEAK = 0.5
"""The peak of every clip, as the VAE expects it."""
FLOOR = 1e-4 * PEAK
"""Magnitude 80 dB below a clip's peak: what lies lower is inaudible next to it, and its logarithm must not count."""


def power_spectrum(waveform: Tensor, n_fft: int) -> Tensor:
    """Squared STFT magnitudes (B, N, n_fft // 2 + 1) of a waveform (B, S); a sine of amplitude a reaches a ** 2.

    Hann window, a quarter of ``n_fft`` between frames, which all lie within the waveform.
    """
    window = torch.hann_window(n_fft, dtype=torch.float32, device=waveform.device)
    bins = torch.fft.rfft(waveform.float().unfold(-1, n_fft, n_fft // 4) * (window * (2 / window.sum())))
    return bins.real.square() + bins.imag.square()


def convergence(power: Tensor, wanted: Tensor) -> Tensor:
    """Spectral convergence of power spectra (B, N, K): ``|| |X| - |Y| || / || |Y| ||`` of each item, (B,)."""
    return (power.sqrt() - wanted.sqrt()).flatten(1).norm(dim=1) / wanted.flatten(1).sum(dim=1).sqrt()


def log_distance(power: Tensor, wanted: Tensor, norm: int = 1) -> Tensor:
    """Distance of the logarithms of power spectra (B, N, K): (B,), in nepers.

    Norm 1 is the mean of ``| ln |X| - ln |Y| |``; 2 its root mean square over bins, averaged over frames, which is the
    log-spectral distance.
    """
    difference = 0.5 * (power.log() - wanted.log())
    if norm == 1:
        return difference.abs().flatten(1).mean(dim=1)
    return (difference.square().mean(dim=2) + 1e-12).sqrt().mean(dim=1)  # the root has no slope at 0


def stft_loss(
    made: Tensor, true: Tensor, fft_sizes: Sequence[int], weight: float = 1.0, log_norm: Literal[1, 2] = 1
) -> Tensor:
    """Multi-resolution STFT loss of waveforms (B, S), blind to phase: mean over items and FFT sizes in samples.

    The true ones have a peak of about :data:`PEAK`. ``weight`` is that of the spectral convergence next to the logarithms. A
    convergence above 4 counts as 4, so that one nearly silent segment cannot outweigh the batch.
    """
    total = made.new_zeros(())
    for n_fft in fft_sizes:
        power, wanted = power_spectrum(made, n_fft) + FLOOR**2, power_spectrum(true, n_fft) + FLOOR**2
        loss = weight * convergence(power, wanted).clamp(max=4.0) + log_distance(power, wanted, log_norm)
        total = total + loss.mean()
    return total / len(fft_sizes)


def _audible(made: Tensor, true: Tensor, n_fft: int) -> tuple[Tensor, Tensor]:
    """Power spectra of waveforms (B, S), cut off 80 dB below the highest bin of each true one.

    What lies lower is masked by the rest, 16-bit recordings hold little there, and without a cut digital silence would be
    infinitely far from anything.
    """
    power, wanted = power_spectrum(made, n_fft), power_spectrum(true, n_fft)
    floor = (wanted.amax(dim=(1, 2), keepdim=True) * 1e-8).clamp(min=1e-20)
    return torch.maximum(power, floor), torch.maximum(wanted, floor)


def log_spectral_distance(made: Tensor, true: Tensor, n_fft: int = 1024) -> Tensor:
    """Log-spectral distance of waveforms (B, S) in dB: (B,), the mean over frames of the root mean square over bins.

    Magnitudes are cut off 80 dB below the true clip's highest.
    """
    power, wanted = _audible(made, true, n_fft)
    return (10 * (power.log10() - wanted.log10())).square().mean(dim=2).sqrt().mean(dim=1)


def multi_resolution_distance(made: Tensor, true: Tensor, fft_sizes: Sequence[int] = (2048, 1024, 512)) -> Tensor:
    """Mean over FFT sizes of spectral convergence plus mean ``| ln |X| - ln |Y| |``, of waveforms (B, S): (B,).

    Magnitudes are cut off 80 dB below the true clip's highest.
    """
    spectra = [_audible(made, true, n_fft) for n_fft in fft_sizes]
    return torch.stack([convergence(*pair) + log_distance(*pair) for pair in spectra]).mean(dim=0)
