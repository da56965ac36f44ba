"""Correlation of the main line: the loudest constant-Q bin of each frame."""

import warnings

import numpy as np
from torch import Tensor

from apa_lightning.metrics.comparison import EditedClip
from apa_lightning.metrics.edit_metric import EditMetric
from apa_lightning.metrics.samples import samples_at
from apa_lightning.utils.correlation import pearson
from apa_lightning.utils.librosa_parts import librosa_part

CQT_RATE, CQT_HOP, CQT_BINS = 16_000, 512, 72
LOWEST_NOTE = "C2"  # six octaves of semitones: up to C8, 4,186 Hz
_SILENT = 1e-3  # of the clip's loudest bin: 60 dB below it


def top_cqt(waveform: Tensor, sample_rate: int) -> np.ndarray:
    """Number of the loudest of 72 constant-Q bins (C2 to B7, semitones) in each 32 ms frame of a waveform (S,).

    Returns:
        (N,) of floats; NaN for a frame that is 60 dB or more below the clip's loudest.
    """
    core, samples = librosa_part("core"), samples_at(CQT_RATE, waveform, sample_rate)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_fft=.* is too large")  # the lowest octaves of clips below 3 s
        spectrum = np.abs(
            core.cqt(
                samples,
                sr=CQT_RATE,
                hop_length=CQT_HOP,
                fmin=float(core.note_to_hz(LOWEST_NOTE)),
                n_bins=CQT_BINS,
                tuning=0.0,
            )
        )
    peaks = spectrum.max(axis=0)
    return np.where(peaks > _SILENT * peaks.max(), spectrum.argmax(axis=0), np.nan)


def cqt_correlation(edited: np.ndarray, source: np.ndarray) -> float:
    """Pearson's correlation of two lines of :func:`top_cqt`, (N,) and (M,); the longer one is cut.

    Frames that are silent in either do not count. NaN where fewer than two are left, or where a line holds one note.
    """
    frames = min(len(edited), len(source))
    edited, source = edited[:frames], source[:frames]
    known = ~(np.isnan(edited) | np.isnan(source))
    return pearson(edited[known], source[known])


class CqtCorrelation(EditMetric):
    """CQT1-PCC: Pearson's correlation over frames of the top-1 constant-Q bin of the edit and of its source.

    Source: SteerMusic (Niu et al., arXiv 2504.10826), "top-1 constant-Q transform Pearson correlation coefficient", on
    the melody line of Hou et al. (arXiv 2410.05151): the loudest CQT bin of each frame. The
    transform's settings are this project's: librosa's at 16 kHz, semitones from C2 to B7, one frame per 32 ms, A4 = 440 Hz,
    no filter before it. It is defined on bins, not on pitch classes: a line one octave up still correlates fully,
    one that leaps between octaves does not. 1 is the same contour, about 0 an unrelated one.
    """

    name = "cqt"
    title = "CQT-1"

    def score(self, edit: EditedClip) -> float:
        """:func:`cqt_correlation` of edit and source."""
        return cqt_correlation(edit.aligned.feature(top_cqt), edit.source.feature(top_cqt))
