"""CQT line, rhythm and dynamics of an edit against its source: closed forms, independent computations, golden values."""

import math

import librosa
import mir_eval
import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from tunes import RATE, clicks, melody, swelling

from apa_lightning.metrics import (
    BeatF1,
    ChromaSimilarity,
    CqtCorrelation,
    Events,
    LoudnessCorrelation,
    OnsetF1,
    PitchAccuracy,
    beat_f1,
    beats,
    cqt_correlation,
    edited_clips,
    loudness,
    loudness_correlation,
    onset_f1,
    onsets,
    top_cqt,
)

METRICS = [CqtCorrelation, OnsetF1, BeatF1, LoudnessCorrelation]
STEADY = np.arange(0.5, 6, 0.5)


def mean_of(metric, edited, source, rate=RATE) -> float:
    metric.update(edited_clips([edited], [source], rate))
    return float(metric.compute())


def uneven(seconds: float = 6.0) -> torch.Tensor:
    """Music that all four can measure: clicks over a tune that swells."""
    return melody(1, seconds=seconds) * torch.linspace(0.1, 1, round(seconds * RATE)) ** 2 + clicks(STEADY, seconds)


@pytest.mark.parametrize("metric", METRICS)
def test_identical_audio_is_one_and_a_longer_edit_is_cut(metric):
    source = uneven()
    assert mean_of(metric(), source, source) == pytest.approx(1)
    assert mean_of(metric(), torch.cat([source, melody(2, seconds=1.0)]), source) > 0.8


@pytest.mark.parametrize("metric", METRICS)
def test_what_cannot_be_measured_is_left_out(metric):
    one = metric()
    one.update(edited_clips([torch.zeros(RATE), torch.ones(100)], [melody(1), melody(1)], RATE))
    assert int(one.skipped) == 2
    assert math.isnan(one.compute())


@pytest.mark.parametrize(
    ("metric", "golden"),
    [
        (CqtCorrelation, 0.0213),
        (OnsetF1, 12 / 13),
        (BeatF1, 4 / 9),
        (LoudnessCorrelation, 0.9736),
        (ChromaSimilarity, 0.3335),
        (PitchAccuracy, 0.1901),
    ],
)
def test_golden_values(metric, golden):
    """Figures of 2026-11 on fixed audio: a change means that another definition is measured."""
    edited = melody(2, seconds=4.0) * torch.linspace(1, 0.2, 4 * RATE) + clicks([0.5, 1.02, 1.7, 2.0, 3.1], 4.0)
    source = melody(1, seconds=4.0) * torch.linspace(1, 0.3, 4 * RATE) ** 2 + clicks([0.5, 1.0, 1.5, 2.0, 3.0], 4.0)
    assert mean_of(metric(), edited, source) == pytest.approx(golden, abs=0.01)


# --- CQT ------------------------------------------------------------------------------------------------------------


def test_the_loudest_bin_is_the_note():
    tone = torch.sin(2 * math.pi * 440 * torch.arange(2 * RATE) / RATE)
    assert np.median(top_cqt(tone, RATE)) == librosa.note_to_midi("A4") - librosa.note_to_midi("C2")
    quiet = torch.cat([tone, torch.zeros(2 * RATE)])
    assert np.isnan(top_cqt(quiet, RATE)[-20:]).all()
    assert np.isnan(top_cqt(torch.zeros(RATE), RATE)).all()


def test_cqt_correlation_follows_the_line_whatever_its_key():
    source = melody(1, seconds=5.0)
    for semitones in (3, 12):
        assert mean_of(CqtCorrelation(), melody(1, semitones, seconds=5.0), source) > 0.95
    assert abs(mean_of(CqtCorrelation(), melody(2, seconds=5.0), source)) < 0.6


def test_cqt_correlation_is_pearsons_over_the_frames_that_both_have():
    edited = np.array([1.0, 5, np.nan, 2, 8, 3, 4])
    source = np.array([2.0, 4, 7, np.nan, 9, 3])
    expected = pearsonr([1, 5, 8, 3], [2, 4, 9, 3]).statistic
    assert cqt_correlation(edited, source) == pytest.approx(expected)
    assert cqt_correlation(-source, source) == pytest.approx(-1)


@pytest.mark.parametrize("line", [[5.0, 5, 5], [np.nan, np.nan, 5.0], [5.0]])
def test_one_held_note_or_frame_has_no_correlation(line):
    assert math.isnan(cqt_correlation(np.array(line), np.array([1.0, 2, 3])))


# --- rhythm ---------------------------------------------------------------------------------------------------------


def test_a_chord_that_never_changes_has_no_onset_but_its_start():
    """librosa finds more than ten a second in it."""
    time = torch.arange(5 * 22_050) / 22_050
    chord = 0.1 * sum(torch.sin(2 * math.pi * f * time) for f in (220.0, 277.18, 329.63))
    assert len(onsets(chord, 22_050).times) <= 1
    assert len(onsets(chord[22_050:] * torch.linspace(0, 1, 4 * 22_050).clamp(0.5), 22_050).times) <= 1


def test_onsets_and_beats_of_clicks():
    found = onsets(clicks(STEADY, 6.0), RATE)
    assert found.seconds == 6
    assert np.abs(found.times - STEADY).max() < 0.03
    assert np.diff(beats(clicks(STEADY, 6.0), RATE).times) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 1.0), (0.03, 1.0), (0.15, 0.0)])
def test_a_shift_beyond_the_window_costs_every_onset(shift, expected):
    assert mean_of(OnsetF1(), clicks(STEADY + shift, 6.5), clicks(STEADY, 6.5)) == pytest.approx(expected, abs=0.1)


def test_another_tempo_costs_beats():
    faster = clicks(np.arange(0.5, 6, 0.37), 6.0)
    assert mean_of(BeatF1(), clicks(STEADY, 6.0), clicks(STEADY, 6.0)) == 1
    assert mean_of(BeatF1(), faster, clicks(STEADY, 6.0)) < 0.6


@pytest.mark.parametrize(("figure", "window"), [(onset_f1, 0.05), (beat_f1, 0.07)])
def test_f1_counts_matches_by_hand(figure, window):
    source = np.array([0.5, 1.0, 1.5, 2.0])
    edited = np.array([0.5 + window - 0.001, 1.0 + window + 0.001, 1.5, 1.7, 9.0])
    precision, recall = 2 / 4, 2 / 4  # 9.0 lies behind the source's end
    expected = 2 * precision * recall / (precision + recall)
    assert figure(Events(edited, 10.0), Events(source, 3.0)) == pytest.approx(expected)


@pytest.mark.parametrize("figure", [onset_f1, beat_f1])
def test_without_events_in_the_source_there_is_no_f1(figure):
    none, some = Events(np.zeros(0), 3.0), Events(np.array([1.0, 2.0]), 3.0)
    assert math.isnan(figure(some, none))
    assert math.isnan(figure(none, none))
    assert math.isnan(figure(some, Events(np.array([5.0]), 9.0)))  # behind the end of the edit
    assert figure(none, some) == 0


def test_beats_of_the_first_five_seconds_count():
    """mir_eval.beat.evaluate would leave these out and print 0."""
    source, edited = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 3.0])
    assert beat_f1(Events(edited, 4.0), Events(source, 4.0)) == 1
    with pytest.warns(UserWarning):
        assert mir_eval.beat.evaluate(source, edited)["F-measure"] == 0


# --- loudness -------------------------------------------------------------------------------------------------------


def test_the_curve_follows_a_known_gain():
    gain = np.array([-30.0, -24, -18, -12, -6])  # 6 dB a second
    curve = loudness(swelling(gain), RATE)
    assert np.diff(curve) == pytest.approx(6 * 512 / RATE, abs=0.01)
    assert curve[0] == pytest.approx(-30 + 6 * 1024 / RATE - 10 * math.log10(2), abs=0.1)


def test_loudness_correlation_of_gains():
    rising, falling, peak = np.arange(-30.0, 0, 6), np.arange(-6.0, -36, -6), np.array([-30.0, -15, 0, -15, -30])
    source = swelling(rising)
    assert mean_of(LoudnessCorrelation(), 0.1 * source, source) == pytest.approx(1, abs=1e-4)
    assert mean_of(LoudnessCorrelation(), swelling(falling), source) == pytest.approx(-1, abs=1e-3)
    assert mean_of(LoudnessCorrelation(), swelling(peak), source) == pytest.approx(0, abs=0.02)


def test_a_constant_level_has_no_correlation():
    constant, rising = swelling(np.full(5, -10.0)), swelling(np.arange(-30.0, 0, 6))
    for pair in ((constant, rising), (rising, constant)):
        assert math.isnan(mean_of(LoudnessCorrelation(), *pair))
    assert math.isnan(loudness_correlation(loudness(rising[: RATE // 2], RATE), loudness(rising, RATE)))


def test_loudness_correlation_is_pearsons_of_the_common_frames():
    first, second = np.random.default_rng(0).normal(size=(2, 50))
    expected = pearsonr(first[:40], second[:40]).statistic
    assert loudness_correlation(first, second[:40]) == pytest.approx(expected)
