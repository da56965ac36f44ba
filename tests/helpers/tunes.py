"""Synthetic music with known notes, onsets and levels."""

import math
from collections.abc import Sequence

import numpy as np
import torch

RATE = 16_000
SCALE = (0, 2, 4, 5, 7, 9, 11, 12)


def melody(seed: int, semitones: float = 0.0, seconds: float = 3.0, rate: int = RATE) -> torch.Tensor:
    """Notes of a major scale with four harmonics, a third of a second each."""
    notes = np.random.default_rng(seed).choice(SCALE, math.ceil(seconds * 3))
    time = np.arange(round(seconds * rate)) / rate
    frequency = 220 * 2 ** ((notes[(time * 3).astype(int)] + semitones) / 12)
    phase = 2 * np.pi * np.cumsum(frequency) / rate
    return torch.tensor(sum(np.sin(k * phase) / k**2 for k in range(1, 5)) * 0.2, dtype=torch.float32)


def clicks(times: Sequence[float], seconds: float, rate: int = RATE) -> torch.Tensor:
    """A decaying 1 kHz click at each of ``times`` (s) on a faint floor of noise."""
    samples = 1e-4 * np.random.default_rng(0).standard_normal(round(seconds * rate))
    click = np.arange(round(0.1 * rate)) / rate
    click = np.sin(2 * np.pi * 1000 * click) * np.exp(-click / 0.02)
    for start in (round(time * rate) for time in times):
        samples[start : start + len(click)] += click[: len(samples) - start]
    return torch.tensor(samples, dtype=torch.float32)


def swelling(gain_db: np.ndarray, rate: int = RATE) -> torch.Tensor:
    """A 440 Hz tone whose level follows ``gain_db`` (one value per second, lines between them)."""
    time = np.arange((len(gain_db) - 1) * rate) / rate
    level = 10 ** (np.interp(time, np.arange(len(gain_db)), gain_db) / 20)
    return torch.tensor(level * np.sin(2 * np.pi * 440 * time), dtype=torch.float32)
