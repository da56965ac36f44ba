"""Pitch accuracy: the pitch of single voices, and how much of one recording's pitch another one has."""

import numpy as np
from mir_eval.melody import hz2cents, raw_chroma_accuracy
from torch import Tensor

from apa_lightning.metrics.comparison import EditedClip
from apa_lightning.metrics.edit_metric import EditMetric
from apa_lightning.metrics.samples import samples_at
from apa_lightning.utils.librosa_parts import librosa_part

PITCH_RATE, PITCH_HOP, PITCH_WINDOW = 16_000, 512, 2048
LOWEST, HIGHEST = 61.7, 2093.0  # Hz: B1, a semitone below the lowest pitch that is told, to C7
_RESOLUTION = 0.2  # semitones; finer is slower and no better within a tolerance of half a semitone


def pitch(waveform: Tensor, sample_rate: int) -> np.ndarray:
    """Fundamental frequency in Hz (N,) of a waveform (S,), one frame per 32 ms: librosa's pYIN.

    It is 0 where there is no pitch. pYIN gives every lower tone the lowest pitch that it looks for: that counts as none.
    """
    frequency, voiced, _ = librosa_part("core").pyin(
        samples_at(PITCH_RATE, waveform, sample_rate),
        fmin=LOWEST,
        fmax=HIGHEST,
        sr=PITCH_RATE,
        frame_length=PITCH_WINDOW,
        hop_length=PITCH_HOP,
        resolution=_RESOLUTION,
        fill_na=0.0,
    )
    return np.where(voiced & (frequency > LOWEST), frequency, 0.0)


def pitch_accuracy(estimated: np.ndarray, reference: np.ndarray) -> float:
    """Share of the reference's pitched frames at which the estimate is within half a semitone of it, octaves aside.

    mir_eval's raw chroma accuracy. Frames without pitch in the estimate count as wrong; NaN if the reference has no pitch.
    """
    frames = min(len(estimated), len(reference))
    estimated, reference = estimated[:frames], reference[:frames]
    if not (reference > 0).any():
        return float("nan")
    if not (estimated > 0).any():
        return 0.0  # as mir_eval has it, which warns of it
    return float(raw_chroma_accuracy(reference > 0, hz2cents(reference), estimated > 0, hz2cents(estimated)))


class PitchAccuracy(EditMetric):
    """Raw chroma accuracy (Poliner et al., 2007; mir_eval) of pYIN's pitch against the source's, averaged over clips.

    For single voices: of several at once pYIN follows one. A tune against another one reaches 0.1 to 0.2 by chance, the
    same tune rendered on two instruments about 0.9.
    """

    name = "melody"
    title = "melody accuracy"
    has_floor = True
    version = 2

    def score(self, edit: EditedClip) -> float:
        """:func:`pitch_accuracy` of edit and source."""
        return pitch_accuracy(edit.aligned.feature(pitch), edit.source.feature(pitch))
