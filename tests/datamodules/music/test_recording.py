"""Effects of a recording on a performance, measured on tones."""

import random
from dataclasses import replace

import numpy as np
import pytest

from datamodules.music.sound.recording import Recording, draw_recording, on_tape, through_microphone

RATE = 16_000
TIMES = np.arange(4 * RATE) / RATE


def tone(hertz: float) -> np.ndarray:
    return 0.1 * np.sin(2 * np.pi * hertz * TIMES)


def level(audio: np.ndarray) -> float:
    return float(20 * np.log10(np.sqrt(np.mean(audio[RATE:-RATE] ** 2))))


def gain(hertz: float, recording: Recording) -> float:
    """Decibels by which a tone comes out louder."""
    return level(through_microphone(tone(hertz), recording, RATE)) - level(tone(hertz))


def test_a_clean_recording_changes_nothing():
    audio = np.random.default_rng(0).standard_normal(RATE)
    assert np.array_equal(through_microphone(on_tape(audio, Recording(), RATE), Recording(), RATE), audio)


@pytest.mark.parametrize(
    ("band", "changed", "kept"),
    [
        (("low shelf", 300.0, 6.0, 0.7), 50, 3000),
        (("high shelf", 2000.0, -6.0, 0.7), 7000, 100),
        (("peak", 1000.0, 6.0, 1.5), 1000, 60),
    ],
)
def test_equalizer_bands_do_what_they_say(band, changed, kept):
    recording = Recording(bands=(band,))
    assert gain(changed, recording) == pytest.approx(band[2], abs=0.6)
    assert gain(kept, recording) == pytest.approx(0, abs=0.4)


def test_a_loud_clip_is_not_clipped_by_the_equalizer():
    loud = 20 * tone(1000)
    assert level(through_microphone(loud, Recording(bands=(("peak", 1000.0, 6.0, 1.5),)), RATE)) == pytest.approx(
        level(loud) + 6, abs=0.6
    )


def test_small_speakers_lose_both_ends():
    recording = Recording(low_cut=180, high_cut=4000)
    assert gain(40, recording) < -20 and gain(7500, recording) < -15
    assert abs(gain(1000, recording)) < 0.5


@pytest.mark.parametrize("color", [0.0, 1.0, 2.0])
def test_noise_lies_as_far_under_the_music_as_asked(color):
    audio = tone(440)
    noisy = through_microphone(audio, Recording(noise=(color, 40.0, 7)), RATE)
    assert level(noisy - audio) == pytest.approx(level(audio) - 40, abs=1.5)
    power = np.abs(np.fft.rfft(noisy - audio)) ** 2
    low, high = power[4 * 200 : 4 * 400].mean(), power[4 * 3200 : 4 * 6400].mean()
    assert 10 * np.log10(low / high) == pytest.approx(color * 10 * np.log10(16), abs=1.0)


def test_hum_is_at_the_mains_frequency():
    hum = through_microphone(tone(440), Recording(hum=(50.0, 40.0)), RATE) - tone(440)
    assert np.argmax(np.abs(np.fft.rfft(hum))) / 4 == 50


def test_an_uneven_tape_bends_the_pitch_and_keeps_the_tune_in_time():
    depth, rate = 20.0, 2.0
    audio = on_tape(tone(1000), Recording(wow=(depth, rate)), RATE)
    phase = np.unwrap(np.angle(np.fft.ifft(np.where(np.arange(len(audio)) < len(audio) // 2, np.fft.fft(audio), 0))))
    cents = 1200 * np.log2(np.diff(phase)[RATE:-RATE] * RATE / (2 * np.pi) / 1000)
    assert cents.max() == pytest.approx(depth, rel=0.15) and cents.min() == pytest.approx(-depth, rel=0.15)
    assert abs(cents.mean()) < 1


def test_saturation_adds_odd_harmonics_only():
    spectrum = np.abs(np.fft.rfft(on_tape(tone(440), Recording(drive=1.0), RATE)))
    assert spectrum[4 * 1320] > 0.01 * spectrum[4 * 440] > 100 * spectrum[4 * 880]


def test_recordings_are_drawn_by_the_seed_and_grow_with_variety():
    assert draw_recording(random.Random(3), 1.0) == draw_recording(random.Random(3), 1.0)
    assert draw_recording(random.Random(3), 1.0) != draw_recording(random.Random(4), 1.0)

    def touched(variety: float) -> int:
        drawn = [draw_recording(random.Random(i), variety) for i in range(200)]
        return sum(bool(r.bands) + bool(r.drive) + bool(r.noise) + bool(r.low_cut) for r in drawn)

    assert touched(0.5) < 0.7 * touched(1.0)
    assert replace(draw_recording(random.Random(5), 0.0), tuning=0.0) == Recording()
