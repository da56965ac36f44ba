"""A clip's samples at the sample rate of an analysis."""

import numpy as np
from torch import Tensor

from apa_lightning.audio import resample


def samples_at(rate: int, waveform: Tensor, sample_rate: int) -> np.ndarray:
    """A waveform (S,) resampled from ``sample_rate`` to ``rate``."""
    return resample(waveform.detach().float().cpu(), sample_rate, rate).numpy()
