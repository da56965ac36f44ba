"""Chroma similarity: how much harmony and melody of a recording is kept."""

import warnings

import librosa
import numpy as np
from torch import Tensor

from apa_lightning.audio import resample
from apa_lightning.metrics.comparison import EditedClip
from apa_lightning.metrics.edit_metric import EditMetric

CHROMA_RATE, CHROMA_BINS, CHROMA_HOP = 16_000, 12, 512


def chroma(waveform: Tensor, sample_rate: int) -> np.ndarray:
    """Constant-Q chromagram (12, N) of a waveform (S,): librosa's, at 16 kHz, one frame per 32 ms."""
    samples = resample(waveform.detach().float().cpu(), sample_rate, CHROMA_RATE).numpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_fft=.* is too large")  # the lowest octaves of clips below 3 s
        warnings.filterwarnings("ignore", "Trying to estimate tuning from empty")  # noise has none: 0 is taken
        return librosa.feature.chroma_cqt(y=samples, sr=CHROMA_RATE, hop_length=CHROMA_HOP, n_chroma=CHROMA_BINS)


def chroma_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over frames of the cosine between two chromagrams (12, N) and (12, M); the longer one is cut.

    A frame without any energy in one of the two counts as 0; one without energy in both is left out.
    """
    frames = min(first.shape[1], second.shape[1])
    first, second = first[:, :frames].astype(np.float64), second[:, :frames].astype(np.float64)
    norms = np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=0)
    sounding = (norms[0] > 0) | (norms[1] > 0)
    product = norms[0] * norms[1]
    cosines = np.divide((first * second).sum(axis=0), product, out=np.zeros(frames), where=product > 0)
    return float(cosines[sounding].mean()) if sounding.any() else float("nan")


class ChromaSimilarity(EditMetric):
    """Framewise cosine similarity of constant-Q chroma with 12 bins, averaged over frames, then over clips.

    Source: the evaluation of AP-Adapter (arXiv 2407.16564), computed with librosa's ``chroma_cqt`` (7 octaves from C1,
    tuning estimated per clip). 1 is the same harmony and melody; *different* real recordings reach about 0.45 to 0.52
    and white noise even 0.68, so a score is only readable next to that of shuffled pairs.
    """

    name = "chroma"
    title = "chroma"
    has_floor = True

    def score(self, edit: EditedClip) -> float:
        """:func:`chroma_cosine` of edit and source."""
        return chroma_cosine(edit.edited.feature(chroma), edit.source.feature(chroma))
