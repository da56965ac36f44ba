"""SoundFonts and the sampler: pitch, envelopes, filters, and files that are none."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from soundfont_tools import write_soundfont

from apa_lightning.errors import InputError
from datamodules.music.composition.events import Note, Track
from datamodules.music.sound import modulators
from datamodules.music.sound.sampler import OVERSAMPLING, render_track
from datamodules.music.sound.soundfont import SoundFont

RATE = 16_000


def played(path: Path, *notes: Note, seconds: float = 1.0) -> np.ndarray:
    return render_track(SoundFont(path), Track("lead", 0, notes), seconds, RATE)


def pitch(audio: np.ndarray) -> float:
    """Hertz of the strongest partial."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 2**19))
    return float(np.argmax(spectrum)) * RATE * OVERSAMPLING / 2**19


@pytest.mark.parametrize("key", [33, 57, 69, 81, 93])
def test_notes_sound_at_their_pitch(soundfont, key):
    audio = played(soundfont, Note(0.0, 1.0, key, 100))
    assert 1200 * abs(np.log2(pitch(audio[4000:28000]) / (440 * 2 ** ((key - 69) / 12)))) < 3


def test_an_ensemble_off_concert_pitch(soundfont):
    track = Track("lead", 0, (Note(0.0, 1.0, 69, 100),))
    sharp, drums = (
        render_track(SoundFont(soundfont), replace(track, drums=drums), 1.0, RATE, tuning=30.0)
        for drums in (False, True)
    )
    assert 1200 * np.log2(pitch(sharp[4000:28000]) / 440) == pytest.approx(30, abs=3)
    assert np.array_equal(drums, render_track(SoundFont(soundfont), replace(track, drums=True), 1.0, RATE))


def test_bends_swells_and_velocity(soundfont):
    bent = played(soundfont, Note(0.0, 1.0, 69, 100, glide=((0.0, 0.0), (0.4, 200.0))))
    assert 1200 * np.log2(pitch(bent[16000:30000]) / 440) == pytest.approx(200, abs=5)
    swell = played(soundfont, Note(0.0, 1.0, 69, 100, swell=(-12.0, 0.0)))
    assert np.std(swell[28000:31000]) > 2.5 * np.std(swell[1000:3000])
    both = played(soundfont, Note(0.0, 0.4, 69, 40), Note(0.5, 0.4, 69, 110))
    quieter = 20 * np.log10(np.std(both[18000:26000]) / np.std(both[2000:10000]))
    assert quieter == pytest.approx(40 * np.log10(110 / 40), abs=1)


def test_notes_end_when_they_are_released(soundfont):
    audio = played(soundfont, Note(0.1, 0.4, 60, 100))
    assert np.abs(audio[: int(0.09 * 2 * RATE)]).max() == 0
    assert np.abs(audio[int(0.52 * 2 * RATE) :]).max() == 0
    assert np.std(audio[int(0.15 * 2 * RATE) : int(0.45 * 2 * RATE)]) > 0.02


def test_high_notes_do_not_alias(soundfont):
    """A sawtooth at 3.5 kHz has no energy below its fundamental."""
    from scipy.signal import resample_poly

    audio = resample_poly(played(soundfont, Note(0.0, 1.0, 105, 100)), 1, OVERSAMPLING)[2000:14000]
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    below = spectrum[20 : int(0.9 * len(audio) * 3520 / RATE)].sum()  # Without the sawtooth's offset.
    assert 10 * np.log10(below / spectrum.sum()) < -40


def test_low_pass_generators_darken(tmp_path, soundfont):
    dark = write_soundfont(tmp_path / "dark.sf2", [(8, 7000)])  # 466 Hz.
    opening = write_soundfont(tmp_path / "opening.sf2", [(8, 5000), (11, 6000), (26, 0)])  # Opens within a second.
    bright, dull, moving = (played(path, Note(0.0, 1.0, 45, 127)) for path in (soundfont, dark, opening))

    def brightness(audio: np.ndarray) -> float:
        spectrum = np.abs(np.fft.rfft(audio)) ** 2
        return float((spectrum * np.arange(len(spectrum))).sum() / spectrum.sum())

    assert brightness(dull) < 0.5 * brightness(bright)
    assert brightness(moving[20000:30000]) > 1.5 * brightness(moving[2000:12000])


def test_modulators_follow_the_standard_curves():
    attenuation = (0x0502, 48, 960, 0)
    assert modulators.offset(attenuation, 60, 127) == pytest.approx(0)
    assert modulators.offset(attenuation, 60, 64) == pytest.approx(400 * np.log10(127 / 64), rel=1e-6)
    assert modulators.offset((0x0002, 8, 1200, 0), 60, 127) == 1200
    assert modulators.offset((0x0102, 8, -2400, 0x0D02), 60, 127) == 0
    assert modulators.offset((0x0081, 6, 50, 0), 60, 100) == 0, "wheels rest"
    assert modulators.offset((0x0203, 51, 10, 0), 0, 64) == -10
    assert modulators.merged([attenuation], [(0x0502, 48, 500, 0)]) == ((0x0502, 48, 500, 0),)


def test_missing_pad_bytes_are_forgiven(tmp_path):
    path = write_soundfont(tmp_path / "odd.sf2", pad=False)
    assert SoundFont(path).regions(0, 60, 100)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\x10\0\0\0sfbkLIST", random.Random(0).randbytes(5000)])
def test_other_files_are_no_soundfonts(tmp_path, content):
    path = tmp_path / "bad.sf2"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.sf2.* not a SoundFont"):
        SoundFont(path)


def test_truncated_soundfonts_are_refused(tmp_path, soundfont):
    data = soundfont.read_bytes()
    for size in (100, 3000, len(data) // 2, len(data) - 40):
        path = tmp_path / "cut.sf2"
        path.write_bytes(data[:size])
        with pytest.raises(InputError):
            SoundFont(path).regions(0, 60, 100)
