"""Pitch: against tones of known frequency, transposed, silent and noisy ones."""

import math

import numpy as np
import pytest
import torch

from apa_lightning.metrics import PitchAccuracy, edited_clips, pitch, pitch_accuracy

RATE = 16_000
TUNE = (262.0, 330.0, 392.0, 523.0, 440.0, 349.0)


def tones(frequencies, seconds: float = 0.5, rate: int = RATE) -> torch.Tensor:
    """Tones one after the other with two overtones, mono (S,)."""
    time = torch.arange(round(seconds * rate)) / rate
    return torch.cat([sum(0.3 / k * torch.sin(2 * math.pi * k * f * time) for k in (1, 2, 3)) for f in frequencies])


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_pitch_of_known_tones(rate):
    found = pitch(tones(TUNE, rate=rate), rate)
    middles = [found[round((i + 0.5) * 0.5 * 16_000 / 512)] for i in range(len(TUNE))]
    assert np.abs(1200 * np.log2(np.array(middles) / np.array(TUNE))).max() < 25


def test_a_tone_below_the_range_has_no_pitch_and_the_lowest_note_has():
    """librosa's pYIN gives 50 Hz as the lowest pitch that it looks for."""
    assert not pitch(tones([50.0]), RATE).any()
    assert np.median(pitch(tones([65.4]), RATE)) == pytest.approx(65.4, abs=0.5)


def test_silence_has_no_pitch_and_noise_hardly_any():
    assert not pitch(torch.zeros(RATE), RATE).any()
    assert (pitch(0.1 * torch.randn(2 * RATE, generator=torch.Generator().manual_seed(0)), RATE) > 0).mean() < 0.3


@pytest.mark.parametrize(
    ("factor", "expected"), [(1.0, 1.0), (2.0, 1.0), (0.5, 1.0), (2 ** (1 / 12), 0.0), (2 ** (0.3 / 12), 1.0)]
)
def test_octaves_are_folded_and_semitones_are_not(factor, expected):
    reference = np.repeat(np.array(TUNE), 10)
    assert pitch_accuracy(reference * factor, reference) == expected


def test_frames_without_pitch_count_as_wrong_only_where_the_reference_has_one():
    reference = np.array([440.0, 440, 0, 0])
    assert pitch_accuracy(np.array([440.0, 0, 440, 0]), reference) == 0.5
    assert math.isnan(pitch_accuracy(reference, np.zeros(4)))


def test_the_same_tune_against_another():
    metric = PitchAccuracy()
    metric.update(edited_clips([tones(TUNE)], [tones([f * 2 for f in TUNE])], RATE))
    assert metric.compute() > 0.9
    metric = PitchAccuracy()
    metric.update(edited_clips([tones(TUNE)], [tones([f * 2 ** (2 / 12) for f in TUNE])], RATE))
    assert metric.compute() < 0.3


def test_a_source_without_pitch_is_left_out(caplog):
    metric = PitchAccuracy()
    metric.update(edited_clips([tones(TUNE)[:RATE], tones(TUNE)], [torch.zeros(RATE), tones(TUNE)], RATE))
    assert (int(metric.clips), int(metric.skipped)) == (1, 1)
    assert "digital silence" in caplog.text
