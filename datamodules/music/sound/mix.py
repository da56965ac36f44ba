"""Mixing of a performance to finished audio: tracks, tape, room, microphone, level, fades."""

import random
from functools import lru_cache

import numpy as np

from datamodules.music.composition.events import Performance
from datamodules.music.sound.recording import Recording, on_tape, through_microphone
from datamodules.music.sound.sampler import OVERSAMPLING, render_track
from datamodules.music.sound.soundfont import SoundFont

SAMPLE_RATE = 16_000
_PEAK = 0.79  # -2 dBFS: lossy codecs overshoot by up to 1.7 dB.
_FADE_IN, _FADE_OUT = 0.005, 0.12


def mix(
    performance: Performance, soundfont: SoundFont, rng: random.Random, recording: Recording = Recording()
) -> np.ndarray:
    """Render a performance to float64 (seconds * 16000,), mono, without offset and faded in and out without a click.

    The root mean square is drawn from -28 to -14 dBFS, as far as a peak of -2 dBFS allows.
    """
    from scipy.signal import resample_poly

    seconds, tuning = performance.seconds, recording.tuning
    dry = np.sum([render_track(soundfont, track, seconds, SAMPLE_RATE, tuning) for track in performance.tracks], axis=0)
    audio = resample_poly(on_tape(dry, recording, SAMPLE_RATE * OVERSAMPLING), 1, OVERSAMPLING)
    decay, wet = performance.reverb
    if wet > 0:
        audio = _reverberated(audio, decay, wet, rng.randrange(8))
    audio = through_microphone(audio, recording, SAMPLE_RATE)
    return leveled(_faded(audio - audio.mean()), rng.uniform(-28, -14))


def leveled(audio: np.ndarray, decibels: float) -> np.ndarray:
    """The audio at a root mean square of `decibels` dBFS, or as near to it as a peak of -2 dBFS allows."""
    level, peak = np.sqrt(np.mean(audio**2)), np.abs(audio).max()
    return audio * min(10 ** (decibels / 20) / level, _PEAK / peak) if peak else audio


def _faded(audio: np.ndarray) -> np.ndarray:
    """The audio with raised-cosine ends, in place."""
    for seconds, ends in ((_FADE_IN, slice(None)), (_FADE_OUT, slice(None, None, -1))):
        count = min(len(audio) // 2, round(seconds * SAMPLE_RATE))
        view = audio[ends]
        view[:count] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(count) / count)
    return audio


def _reverberated(audio: np.ndarray, decay: float, wet: float, room: int) -> np.ndarray:
    from scipy.signal import fftconvolve

    tail = fftconvolve(audio, _room(round(decay, 1), room))[: len(audio)]
    return (1 - wet) * audio + wet * tail * np.sqrt(np.mean(audio**2)) / (np.sqrt(np.mean(tail**2)) + 1e-12)


@lru_cache(maxsize=256)
def _room(decay: float, room: int) -> np.ndarray:
    """An impulse response: a short gap, then noise that darkens and fades by 60 dB in `decay` seconds."""
    from scipy.signal import lfilter

    noise = np.random.default_rng(1000 + room).standard_normal(int((decay + 0.05) * SAMPLE_RATE))
    times = np.arange(len(noise)) / SAMPLE_RATE
    bright = noise * 10 ** (-3 * times / (0.6 * decay))
    dark = lfilter([0.3], [1, -0.7], noise) * 10 ** (-3 * times / decay)
    response = np.where(times < 0.004 + 0.003 * room, 0.0, bright + 1.5 * dark)
    return response / np.sqrt(np.sum(response**2))
