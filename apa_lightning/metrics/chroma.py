"""Chroma similarity: how much harmony and melody of a recording is kept."""

import warnings

import numpy as np
from torch import Tensor

from apa_lightning.metrics.comparison import Clip, EditedClip
from apa_lightning.metrics.edit_metric import EditMetric
from apa_lightning.metrics.samples import samples_at
from apa_lightning.utils.librosa_parts import librosa_part

CHROMA_RATE, CHROMA_BINS, CHROMA_HOP = 16_000, 12, 512
CQT_BINS_PER_OCTAVE = 36  # librosa's default
_ROUNDING = 1e-7  # of the clip's loudest frame: 140 dB below it


def tuning(waveform: Tensor, sample_rate: int) -> float:
    """Deviation of a waveform (S,) from A4 = 440 Hz, -0.5 to 0.5 of a third of a semitone; 0 for noise, which has none."""
    samples = samples_at(CHROMA_RATE, waveform, sample_rate)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Trying to estimate tuning from empty")
        return float(
            librosa_part("core").estimate_tuning(y=samples, sr=CHROMA_RATE, bins_per_octave=CQT_BINS_PER_OCTAVE)
        )


def chroma(waveform: Tensor, sample_rate: int, tuned: float | None = None) -> np.ndarray:
    """Constant-Q chromagram (12, N) of a waveform (S,): librosa's, at 16 kHz, one frame per 32 ms, each scaled to a maximum of 1.

    A frame 140 dB below the clip's loudest holds the rounding of single precision, which librosa would scale to notes: it is 0.

    Args:
        waveform: Samples (S,).
        sample_rate: Sample rate in Hz.
        tuned: The :func:`tuning` that the bins lie on; None means the waveform's own.
    """
    samples = samples_at(CHROMA_RATE, waveform, sample_rate)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_fft=.* is too large")  # the lowest octaves of clips below 3 s
        energy = librosa_part("feature").chroma_cqt(
            y=samples,
            sr=CHROMA_RATE,
            hop_length=CHROMA_HOP,
            n_chroma=CHROMA_BINS,
            bins_per_octave=CQT_BINS_PER_OCTAVE,
            tuning=tuning(waveform, sample_rate) if tuned is None else tuned,
            norm=None,
        )
    peaks = energy.max(axis=0)
    return np.divide(energy, peaks, out=np.zeros_like(energy), where=peaks > _ROUNDING * peaks.max())


def chroma_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over frames of the cosine between two chromagrams (12, N) and (12, M); the longer one is cut.

    A frame without any energy in one of the two counts as 0; one without energy in both is left out. Only digital silence has
    none: noise in a rest counts as noise does, however quiet.
    """
    frames = min(first.shape[1], second.shape[1])
    first, second = first[:, :frames].astype(np.float64), second[:, :frames].astype(np.float64)
    norms = np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=0)
    sounding = (norms[0] > 0) | (norms[1] > 0)
    product = norms[0] * norms[1]
    cosines = np.divide((first * second).sum(axis=0), product, out=np.zeros(frames), where=product > 0)
    return float(cosines[sounding].mean()) if sounding.any() else float("nan")


def chroma_similarity(edited: Clip, source: Clip) -> float:
    """:func:`chroma_cosine` of two clips, both on the source's tuning.

    Estimated apart, the tunings of one pair can fall on two sides of a bin's border, and the same notes into different bins.
    """
    tuned = source.feature(tuning)
    return chroma_cosine(edited.feature(chroma, tuned), source.feature(chroma, tuned))


class ChromaSimilarity(EditMetric):
    """Framewise cosine similarity of constant-Q chroma with 12 bins, averaged over frames, then over clips.

    Source: the evaluation of AP-Adapter (arXiv 2407.16564), computed with librosa's ``chroma_cqt`` (7 octaves from C1), on the
    tuning of the source for both clips. 1 is the same harmony and melody; *different* real recordings reach about 0.45 to
    0.52 and white noise even 0.68, so a score is only readable next to that of shuffled pairs.
    """

    name = "chroma"
    title = "chroma"
    has_floor = True
    version = 2

    def score(self, edit: EditedClip) -> float:
        """:func:`chroma_similarity` of edit and source."""
        return chroma_similarity(edit.aligned, edit.source)
