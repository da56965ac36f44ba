"""The two spectrograms of the model: Kaldi filter banks for AudioMAE, log-mels for the VAE and the vocoder.

Kaldi's fbank is torchaudio's, the mel filters are librosa's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torchaudio
from torch import Tensor

from apa_lightning.audio.waveform import real_parts

# AudioMAE's input normalization, (x - mean) / (2 * std), with AudioSet's statistics (x + 4.2677393).
FBANK_MEAN, FBANK_STD = -4.2677393, 4.5689974


@dataclass(frozen=True)
class MelSpec:
    """Geometry of the backbone's log-mel; the defaults are AudioLDM2's."""

    sample_rate: int = 16_000
    n_fft: int = 1024
    hop_length: int = 160
    num_mels: int = 64
    f_min: float = 0.0
    f_max: float = 8_000.0


@contextmanager
def _default_float32() -> Iterator[None]:
    """Set torch's default type, in which torchaudio's Kaldi features build their filters; bf16-true changes it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@_default_float32()
def fbank(
    waveform: Tensor,
    num_frames: int = 1024,
    num_mels: int = 128,
    sample_rate: int = 16_000,
    lengths: Sequence[int] | None = None,
) -> Tensor:
    """AudioMAE's input: Kaldi filter banks of (B, S) at ``sample_rate`` -> (B, 1, T=num_frames, F=num_mels).

    25 ms Hann window, 10 ms shift. The *frames* are zero-padded or cut to ``num_frames``, before normalizing, as published:
    give ``lengths``, the samples of each item that are not padding, where a waveform was padded.
    """
    banks = []
    with torch.autocast(waveform.device.type, enabled=False):
        for item in real_parts(waveform.float(), lengths):
            if len(item) < sample_rate * 0.025:  # not one frame
                banks.append(item.new_zeros(num_frames, num_mels))
                continue
            frames = torchaudio.compliance.kaldi.fbank(
                (item - item.mean())[None],
                htk_compat=True,
                sample_frequency=sample_rate,
                use_energy=False,
                window_type="hanning",
                num_mel_bins=num_mels,
                dither=0.0,
                frame_shift=10.0,
                frame_length=25.0,
            )
            banks.append(torch.nn.functional.pad(frames, (0, 0, 0, num_frames - len(frames))))
        return ((torch.stack(banks) - FBANK_MEAN) / (2 * FBANK_STD)).unsqueeze(1)


@lru_cache(maxsize=8)
def mel_basis(spec: MelSpec, device: torch.device) -> tuple[Tensor, Tensor]:
    """The Slaney mel filters (n_fft // 2 + 1, F) and the Hann window (n_fft,) of :func:`log_mel`."""
    from librosa.filters import mel  # takes a second, and only an edit needs it

    filters = mel(
        sr=spec.sample_rate,
        n_fft=spec.n_fft,
        n_mels=spec.num_mels,
        fmin=spec.f_min,
        fmax=spec.f_max,
        norm="slaney",
        dtype=np.float32,
    )
    return torch.from_numpy(filters.T).to(device), torch.hann_window(spec.n_fft, dtype=torch.float32, device=device)


def log_mel(waveform: Tensor, spec: MelSpec = MelSpec()) -> Tensor:
    """Natural log of Slaney mel magnitudes, clamped at 1e-5: (B, S) -> (B, 1, T=S // hop, F=num_mels).

    The level is used as it is; :func:`normalize_level` goes before for the VAE.
    """
    filters, window = mel_basis(spec, waveform.device)
    with torch.autocast(waveform.device.type, enabled=False):
        magnitude = torch.stft(
            waveform.float(),
            spec.n_fft,
            spec.hop_length,
            window=window,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        ).abs()
        mel = magnitude.transpose(1, 2) @ filters
        return mel[:, : waveform.shape[-1] // spec.hop_length].clamp(min=1e-5).log().unsqueeze(1)
