"""Correlation of the dynamics: the loudness curve of an edit against that of its source."""

import numpy as np
from scipy.signal import savgol_filter
from torch import Tensor

from apa_lightning.metrics.comparison import EditedClip
from apa_lightning.metrics.edit_metric import EditMetric
from apa_lightning.metrics.samples import samples_at
from apa_lightning.utils.correlation import pearson
from apa_lightning.utils.librosa_parts import librosa_part

LOUDNESS_RATE, LOUDNESS_HOP, LOUDNESS_WINDOW = 16_000, 512, 2048
SMOOTHING, _DEGREE = 31, 3  # frames (about 1 s), and the polynomial's degree
FLOOR_DB = 80.0  # below the clip's loudest frame
CONSTANT_DB = 0.1  # a curve that varies less, peak to peak, has no dynamics


def loudness(waveform: Tensor, sample_rate: int) -> np.ndarray:
    """Loudness curve (N,) in dB of a waveform (S,), one frame per 32 ms.

    RMS of 128 ms windows, no lower than 80 dB below the loudest, smoothed by a Savitzky-Golay filter over 1 s. Empty for a
    clip that is shorter than the filter.
    """
    samples = samples_at(LOUDNESS_RATE, waveform, sample_rate)
    if len(samples) < LOUDNESS_WINDOW + (SMOOTHING - 1) * LOUDNESS_HOP:
        return np.zeros(0)
    level = librosa_part("feature").rms(y=samples, frame_length=LOUDNESS_WINDOW, hop_length=LOUDNESS_HOP, center=False)[
        0
    ]
    return savgol_filter(librosa_part("core").amplitude_to_db(level, amin=1e-7, top_db=FLOOR_DB), SMOOTHING, _DEGREE)


def loudness_correlation(edited: np.ndarray, source: np.ndarray) -> float:
    """Pearson's correlation of two curves of :func:`loudness`, (N,) and (M,); the longer one is cut.

    NaN for a clip that is too short or whose curve is constant (varies by less than 0.1 dB).
    """
    frames = min(len(edited), len(source))
    edited, source = edited[:frames], source[:frames]
    if frames < 2 or min(np.ptp(edited), np.ptp(source)) < CONSTANT_DB:
        return float("nan")
    return pearson(edited, source)


class LoudnessCorrelation(EditMetric):
    """Pearson's correlation of the loudness curves of the edit and of its source, averaged over clips.

    Source: "dynamics correlation" of Music ControlNet (Wu et al., arXiv 2311.07069): frame-wise energy in dB, smoothed by
    a Savitzky-Golay filter over one second, one correlation per clip (the paper's micro average). A gain does not count.
    """

    name = "loudness"
    title = "loudness"

    def score(self, edit: EditedClip) -> float:
        """:func:`loudness_correlation` of edit and source."""
        return loudness_correlation(edit.aligned.feature(loudness), edit.source.feature(loudness))
