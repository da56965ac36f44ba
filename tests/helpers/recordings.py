"""Recordings on the disk."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def tone(path: Path, seconds: float = 1.0, frequency: float = 440.0, rate: int = RATE, **options) -> Path:
    """Write a decaying tone."""
    time = np.arange(round(seconds * rate)) / rate
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * frequency * time) * np.exp(-time), rate, **options)
    return path
