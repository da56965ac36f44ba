"""Rhythm: onsets and beats of an edit against those of its source."""

from typing import NamedTuple

import mir_eval
import numpy as np
from torch import Tensor

from apa_lightning.metrics.comparison import EditedClip
from apa_lightning.metrics.edit_metric import EditMetric
from apa_lightning.metrics.samples import samples_at
from apa_lightning.utils.librosa_parts import librosa_part

RHYTHM_RATE = 22_050  # librosa's own: its detectors are tuned for it, one frame per 23 ms
#: Mean rise of the mel bands in dB. Beating partials of a steady chord reach 0.35, the weakest onsets of recordings 0.97.
LEAST_STRENGTH = 0.5
ONSET_WINDOW, BEAT_WINDOW = 0.05, 0.07  # s either side


class Events(NamedTuple):
    """Times (N,) in seconds, ascending, within a clip that lasts ``seconds``."""

    times: np.ndarray
    seconds: float

    def before(self, seconds: float) -> np.ndarray:
        """The times below ``seconds``."""
        return self.times[self.times < seconds]


def onsets(waveform: Tensor, sample_rate: int) -> Events:
    """Onsets of a waveform (S,): librosa's ``onset_detect`` with its defaults, those of :data:`LEAST_STRENGTH` or more.

    The detector compares strengths with their maximum in the clip, so that it finds onsets in a chord that never changes.
    """
    onset, samples = librosa_part("onset"), samples_at(RHYTHM_RATE, waveform, sample_rate)
    strength = onset.onset_strength(y=samples, sr=RHYTHM_RATE)
    frames = onset.onset_detect(onset_envelope=strength, sr=RHYTHM_RATE)
    times = librosa_part("core").frames_to_time(frames[strength[frames] >= LEAST_STRENGTH], sr=RHYTHM_RATE)
    return Events(times, len(waveform) / sample_rate)


def beats(waveform: Tensor, sample_rate: int) -> Events:
    """Beats of a waveform (S,): librosa's ``beat_track`` (Ellis, 2007) with its defaults."""
    samples = samples_at(RHYTHM_RATE, waveform, sample_rate)
    times = librosa_part("beat").beat_track(y=samples, sr=RHYTHM_RATE, units="time")[1]
    return Events(times, len(waveform) / sample_rate)


def onset_f1(edited: Events, source: Events) -> float:
    """mir_eval's onset F-measure within 50 ms, up to the end of the shorter clip.

    NaN if the source has no onset there; 0 if only the edit has none.
    """
    found, true = _common(edited, source)
    if not len(found) or not len(true):  # mir_eval warns, and calls no events at all 0
        return 0.0 if len(true) else float("nan")
    return float(mir_eval.onset.f_measure(true, found, window=ONSET_WINDOW)[0])


def beat_f1(edited: Events, source: Events) -> float:
    """mir_eval's beat F-measure within 70 ms, up to the end of the shorter clip.

    Nothing is trimmed: the five seconds that ``mir_eval.beat.evaluate`` leaves out first are half of a 10 s clip.
    NaN if the source has no beat there; 0 if only the edit has none.
    """
    found, true = _common(edited, source)
    if not len(found) or not len(true):
        return 0.0 if len(true) else float("nan")
    return float(mir_eval.beat.f_measure(true, found, f_measure_threshold=BEAT_WINDOW))


class OnsetF1(EditMetric):
    """F-measure of the edit's onsets against the source's, averaged over clips.

    Source: mir_eval (Raffel et al., 2014), the onset task of MIREX with its 50 ms. The source's onsets are estimates too:
    the score says whether one detector finds the same in both recordings.
    """

    name = "onset_f1"
    title = "onset F1"
    version = 2

    def score(self, edit: EditedClip) -> float:
        """:func:`onset_f1` of edit and source."""
        return onset_f1(edit.aligned.feature(onsets), edit.source.feature(onsets))


class BeatF1(EditMetric):
    """F-measure of the edit's beats against the source's, averaged over clips.

    Source: "rhythm F1" of Music ControlNet (Wu et al., arXiv 2311.07069) by mir_eval's beat F-measure and its 70 ms, with
    librosa's beat tracker in place of madmom's. Music without a pulse has beats to this tracker all the same.
    """

    name = "beat_f1"
    title = "beat F1"

    def score(self, edit: EditedClip) -> float:
        """:func:`beat_f1` of edit and source."""
        return beat_f1(edit.aligned.feature(beats), edit.source.feature(beats))


def _common(edited: Events, source: Events) -> tuple[np.ndarray, np.ndarray]:
    seconds = min(edited.seconds, source.seconds)
    return edited.before(seconds), source.before(seconds)
