"""The picture of a recording: its waveform above its spectrogram, in time from the left to the right edge."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from apa_lightning.audio import MelSpec, load_audio, log_mel, resample, to_mono
from apa_lightning.utils.atomic_files import atomic_path

WIDTH, WAVEFORM_HEIGHT = 1000, 90
#: Colors (R, G, B) of the spectrogram from silence to the loudest sound, and of the waveform.
COLORS = np.array([(17, 15, 33), (80, 35, 110), (199, 70, 90), (252, 170, 70), (252, 250, 200)])
WAVE = (122, 162, 247)


def draw(audio: Path, picture: Path) -> Path:
    """Draw an audio file into a PNG, unless that is there already."""
    if not picture.exists():
        waveform, rate = load_audio(audio)
        image = Image.fromarray(pixels(to_mono(waveform), rate))
        with atomic_path(picture) as temporary:
            image.save(temporary, "PNG", optimize=True)
    return picture


def pixels(waveform: torch.Tensor, sample_rate: int) -> np.ndarray:
    """The picture (H, W, 3) of a waveform (S,)."""
    samples = waveform.abs()
    peaks = torch.nn.functional.adaptive_max_pool1d(samples[None], WIDTH)[0].numpy()
    half = WAVEFORM_HEIGHT // 2
    height = np.maximum(peaks / max(float(peaks.max()), 1e-6) * (half - 4), 1)
    inside = np.abs(np.arange(WAVEFORM_HEIGHT) - half)[:, None] <= height[None]
    wave = np.where(inside[..., None], WAVE, COLORS[0])
    spec = MelSpec(num_mels=128)
    heard = resample(waveform, sample_rate, spec.sample_rate)
    heard = torch.nn.functional.pad(heard, (0, max(0, spec.n_fft - len(heard))))
    mel = torch.nn.functional.adaptive_max_pool1d(log_mel(heard[None], spec)[0, 0].T[None], WIDTH)[0].flip(0).numpy()
    level = np.clip((mel - mel.max()) / 8 + 1, 0, 1) * (len(COLORS) - 1)  # 8 nepers: 70 dB
    colored = np.stack([np.interp(level, range(len(COLORS)), COLORS[:, channel]) for channel in range(3)], -1)
    return np.concatenate([wave, colored]).astype(np.uint8)
