"""Properties of a recording: tuning, tape, equalizers, microphones, noise; all of them are drawn anew for each clip."""

import io
import random
from dataclasses import dataclass

import numpy as np

from datamodules.music.sound.encode import CODINGS


@dataclass(frozen=True)
class Recording:
    """How one clip is recorded; the defaults leave the sound as it is."""

    tuning: float = 0.0  # Cents by which everything is off concert pitch
    wow: tuple[float, float] = (0.0, 0.0)  # (depth in cents, Hz) of an uneven tape speed
    drive: float = 0.0  # Tape saturation, 0 for none, 1 for a compressed, warm sound
    # (kind, Hz, decibels, quality) of equalizer bands; kinds are "low shelf", "peak" and "high shelf"
    bands: tuple[tuple[str, float, float, float], ...] = ()
    low_cut: float = 0.0  # Hz below which a microphone or a small speaker picks up nothing; 0 for none
    high_cut: float = 0.0  # Hz above which it picks up nothing; 0 for none
    # (color, decibels under the music, seed); the color is the exponent of 1/f: 0 hiss, 1 pink, 2 rumble
    noise: tuple[float, float, int] | None = None
    hum: tuple[float, float] | None = None  # (Hz, decibels under the music) of the mains and its harmonics


def draw_recording(rng: random.Random, variety: float) -> Recording:
    """A random recording; `variety` scales how often and how strongly each part departs from a clean one (1: usual)."""

    def happens(share: float) -> bool:
        return rng.random() < share * variety

    gain = 3.0 * variety
    bands = [("low shelf", rng.uniform(80, 300), rng.gauss(0, gain), 0.7)]
    bands.append(("high shelf", rng.uniform(1500, 5000), rng.gauss(0, gain), 0.7))
    for _ in range(rng.randrange(3)):
        bands.append(("peak", 10 ** rng.uniform(2.3, 3.7), rng.gauss(0, gain), rng.uniform(0.5, 2.0)))
    return Recording(
        tuning=max(-45.0, min(45.0, rng.gauss(0, 12 * variety))),
        wow=(rng.uniform(1.0, 6.0) * variety, rng.uniform(0.4, 6.0)) if happens(0.2) else (0.0, 0.0),
        drive=rng.uniform(0.2, 1.0) * variety if happens(0.3) else 0.0,
        bands=tuple(bands) if happens(0.7) else (),
        low_cut=rng.uniform(50, 180) if happens(0.25) else 0.0,
        high_cut=rng.uniform(3500, 7000) if happens(0.25) else 0.0,
        noise=(rng.choice([0.0, 1.0, 1.0, 2.0]), rng.uniform(38, 65), rng.randrange(2**31)) if happens(0.25) else None,
        hum=(rng.choice([50.0, 60.0]), rng.uniform(40, 60)) if happens(0.08) else None,
    )  # fmt: skip


def coded(audio: np.ndarray, rate: int, rng: random.Random, variety: float) -> np.ndarray:
    """The audio (S,), now and then as it comes back from Opus or Vorbis at a low bit rate."""
    if rng.random() >= 0.15 * variety:
        return audio
    import soundfile

    file, coding = io.BytesIO(), rng.choice(["ogg-opus", "ogg-vorbis"])
    soundfile.write(file, audio, rate, **CODINGS[coding].options)
    file.seek(0)
    decoded, _ = soundfile.read(file, frames=len(audio), fill_value=0.0)
    return decoded


def on_tape(audio: np.ndarray, recording: Recording, rate: int) -> np.ndarray:
    """Uneven speed and saturation, on audio (S,) at a rate well above twice its bandwidth."""
    depth, frequency = recording.wow
    if depth:
        times = np.arange(len(audio)) / rate
        # The integral of a sinusoidal speed, so that the pitch deviates by `depth` cents.
        shift = depth / 1200 * np.log(2) / (2 * np.pi * frequency) * (1 - np.cos(2 * np.pi * frequency * times))
        audio = np.interp(times + shift, times, audio)
    if recording.drive:
        level = np.sqrt(np.mean(audio**2)) + 1e-12
        steepness = recording.drive / (2.5 * level)
        audio = np.tanh(audio * steepness) / steepness
    return audio


def through_microphone(audio: np.ndarray, recording: Recording, rate: int) -> np.ndarray:
    """Equalizer, band limits, then noise and hum, on audio (S,)."""
    audio = _equalized(audio, recording, rate)
    level = np.sqrt(np.mean(audio**2))
    if recording.noise is not None:
        color, below, seed = recording.noise
        audio = audio + level * 10 ** (-below / 20) * _colored(len(audio), color, seed, rate)
    if recording.hum is not None:
        frequency, below = recording.hum
        phases = 2 * np.pi * frequency * np.arange(len(audio)) / rate
        audio = audio + level * 10 ** (-below / 20) * sum(np.sin(k * phases + k) / k for k in (1, 2, 3, 5))
    return audio


def _equalized(audio: np.ndarray, recording: Recording, rate: int) -> np.ndarray:
    if not (recording.bands or recording.low_cut or recording.high_cut):
        return audio
    import torch
    from torchaudio import functional

    bands = {
        "low shelf": functional.bass_biquad,
        "high shelf": functional.treble_biquad,
        "peak": lambda wave, rate, gain, hertz, q: functional.equalizer_biquad(wave, rate, hertz, gain, q),
    }
    headroom = 1000 * np.abs(audio).max() + 1e-12  # torchaudio's filters clip at 1.
    wave = torch.from_numpy(audio / headroom)
    for kind, hertz, decibels, quality in recording.bands:
        wave = bands[kind](wave, rate, decibels, hertz, quality)
    if recording.low_cut:
        wave = functional.highpass_biquad(wave, rate, recording.low_cut)
    if recording.high_cut:
        for quality in (0.541, 1.307):  # The two sections of a fourth-order Butterworth filter.
            wave = functional.lowpass_biquad(wave, rate, recording.high_cut, quality)
    return wave.numpy() * headroom


def _colored(count: int, color: float, seed: int, rate: int) -> np.ndarray:
    """Noise (count,) of unit root mean square whose power falls as 1/f**color above 40 Hz."""
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    frequencies = np.maximum(np.fft.rfftfreq(count, 1 / rate), 40.0)
    noise = np.fft.irfft(spectrum * frequencies ** (-color / 2), count)
    return noise / np.sqrt(np.mean(noise**2))
