"""Tracks played on a SoundFont: resampled samples through volume envelope, moving low-pass filter, vibrato and bends.

Voices are computed at twice the output rate, so that what folds back lies above the band that the final decimation keeps.
"""

from functools import lru_cache
from itertools import pairwise

import numpy as np

from datamodules.music.composition.events import Note, Track
from datamodules.music.sound import soundfont as sf

OVERSAMPLING = 2
_SILENT_DB = 80.0  # A voice ends when it is this far down.
_MAX_RELEASE = 1.5  # Seconds; some SoundFonts ring for half a minute.
_CENTS_PER_FILTER_STEP = 120.0


def render_track(
    soundfont: sf.SoundFont, track: Track, seconds: float, sample_rate: int, tuning: float = 0.0
) -> np.ndarray:
    """One track as float64 (seconds * sample_rate * OVERSAMPLING,), with its expression and drive.

    Where it sounds, its root mean square is the track's level (0 dB is 0.1). `tuning` is in cents off concert pitch; drums
    have none.
    """
    rate = sample_rate * OVERSAMPLING
    out = np.zeros(round(seconds * rate))
    for note, region, stop in _voices(soundfont, track, seconds):
        at = round(note.start * rate)
        voice = _play(soundfont, region, note, rate, min(stop, seconds) - note.start, 0.0 if track.drums else tuning)
        voice = voice[: max(0, len(out) - at)]
        out[at : at + len(voice)] += voice
    if track.expression:
        times, decibels = zip(*track.expression, strict=True)
        out *= 10 ** (np.interp(np.arange(len(out)) / rate, times, decibels) / 20)
    if track.drive:
        out = _amplifier(out, track.drive)
    return out * (0.1 * 10 ** (track.level / 20) / (_loudness(out, rate) + 1e-12))


def _loudness(audio: np.ndarray, rate: int) -> float:
    """Root mean square over the 50 ms frames that are less than 30 dB below the loudest."""
    size = rate // 20
    frames = audio[: len(audio) // size * size].reshape(-1, size)
    power = np.mean(frames**2, axis=1) if len(frames) else np.mean(audio**2, keepdims=True)
    return float(np.sqrt(np.mean(power[power >= power.max() * 1e-3])))


def _voices(soundfont: sf.SoundFont, track: Track, seconds: float) -> list[tuple[Note, sf.Region, float]]:
    """(note, region, second at which it is choked): a hi-hat that closes silences the open one of its class."""
    voices: list[tuple[Note, sf.Region, float]] = []
    last: dict[float, int] = {}
    for note in sorted(track.notes, key=lambda note: (note.start, note.pitch)):
        if note.start >= seconds:
            break
        for region in soundfont.regions(track.program, note.pitch, note.velocity, track.drums):
            if group := region.get(sf.EXCLUSIVE_CLASS):
                if group in last and voices[last[group]][0].start < note.start:
                    voices[last[group]] = (*voices[last[group]][:2], note.start + 0.02)
                last[group] = len(voices)
            voices.append((note, region, seconds))
    return voices


def _play(soundfont: sf.SoundFont, region: sf.Region, note: Note, rate: int, limit: float, tuning: float) -> np.ndarray:
    """One voice at `rate`, at most `limit` seconds long."""
    release = min(_seconds(region.get(sf.RELEASE)), _MAX_RELEASE)
    count = int(min(note.duration + release * _SILENT_DB / 100, limit) * rate)
    if count <= 0:
        return np.zeros(0)
    times = np.arange(count) / rate
    volume = _volume(region, note, times, release)
    audio = _read(soundfont, region, note, times, rate, tuning)
    audio = _filter(audio, region, note, times, rate)[: len(volume)]
    audio *= volume[: len(audio)]
    if note.swell:
        points = np.linspace(0, note.duration, len(note.swell))
        audio *= np.exp(np.interp(times[: len(audio)], points, note.swell) * (np.log(10) / 20))
    tail = min(len(audio), int(0.004 * rate))  # Short samples and choked voices end without a click.
    audio[len(audio) - tail :] *= np.linspace(1, 0, tail)
    pan = np.clip(region.get(sf.PAN) / 1000 + 0.5, 0, 1) * np.pi / 2
    return audio * (np.cos(pan) + np.sin(pan)) / np.sqrt(2)


def _read(
    soundfont: sf.SoundFont, region: sf.Region, note: Note, times: np.ndarray, rate: int, tuning: float
) -> np.ndarray:
    """The sample at the note's pitch, looped as long as `times` needs (shorter where it ends before)."""
    sample = soundfont.sample(region.sample)
    root = region.get(sf.ROOT_KEY) if 0 <= region.get(sf.ROOT_KEY) < 128 else sample.root
    cents = (note.pitch - root) * region.get(sf.SCALE_TUNING) + region.get(sf.COARSE_TUNE) * 100
    cents += region.get(sf.FINE_TUNE) + sample.correction + tuning
    step = 2 ** (cents / 1200) * sample.rate / rate
    octaves = max(0, int(np.ceil(np.log2(step / 1.5))))
    start = _offset(region, sf.START, sf.START_COARSE)
    stop = len(sample.data) + _offset(region, sf.END, sf.END_COARSE)
    first = sample.loop_start + _offset(region, sf.LOOP_START, sf.LOOP_START_COARSE)
    last = sample.loop_end + _offset(region, sf.LOOP_END, sf.LOOP_END_COARSE)
    looped = bool(int(region.get(sf.SAMPLE_MODES)) & 1) and 0 <= first < last <= len(sample.data)
    data = _piece(soundfont, region.sample, start, stop, (first, last) if looped else None, octaves)
    factor = 2.0**-octaves
    bend = _bend(region, note, times)
    if bend is None:
        position = times * (rate * step * factor)
    else:
        speed = np.exp(bend * (np.log(2) / 1200))
        position = (np.cumsum(speed) - speed) * (step * factor)
    if looped:
        cycle = (last - first) * factor
        position -= cycle * np.maximum(0, np.floor((position - (first - start) * factor) * (1 / cycle)))
    else:
        position = position[: np.searchsorted(position, len(data) - 4)]
    return _interpolate(data, position)


@lru_cache(maxsize=2_000)
def _piece(
    soundfont: sf.SoundFont, number: int, start: int, stop: int, loop: tuple[int, int] | None, octaves: int
) -> np.ndarray:
    """A sample ready to be read at any step below 1.5, 1/2**octaves as long.

    float64: one zero, the data (or attack and loop with a stretch of its repetition), zeros.
    """
    from scipy.signal import resample_poly

    data = soundfont.sample(number).data[max(0, start) : stop].astype(np.float64)
    if loop is not None:
        cycle = data[loop[0] - start : loop[1] - start]
        repeats = 1 + (96 << octaves) // len(cycle)
        data = np.concatenate([data[: loop[1] - start], np.tile(cycle, repeats)])
    for _ in range(octaves):
        data = resample_poly(data, 1, 2)
    return np.concatenate([[0.0], data, np.zeros(4)])


def _interpolate(data: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Four-point, third-order Hermite interpolation; data[0] is a pad, so position 0 reads data[1]."""
    index = np.minimum(position.astype(np.int64), len(data) - 4)
    x = position - index
    before, here, after, beyond = data[index], data[index + 1], data[index + 2], data[index + 3]
    c1 = 0.5 * (after - before)
    c2 = before - 2.5 * here + 2 * after - 0.5 * beyond
    c3 = 0.5 * (beyond - before) + 1.5 * (here - after)
    return ((c3 * x + c2) * x + c1) * x + here


def _bend(region: sf.Region, note: Note, times: np.ndarray) -> np.ndarray | None:
    """Cents over time from LFOs, modulation envelope, the note's vibrato and glide; None where the pitch stands still."""
    parts: list[np.ndarray] = []
    for depth, delay, frequency in (
        (sf.VIB_LFO_PITCH, sf.VIB_LFO_DELAY, sf.VIB_LFO_RATE),
        (sf.MOD_LFO_PITCH, sf.MOD_LFO_DELAY, sf.MOD_LFO_RATE),
    ):
        if region.get(depth):
            phase = np.maximum(0, times - _seconds(region.get(delay))) * _hertz(region.get(frequency)) + 0.25
            parts.append(region.get(depth) * (1 - 4 * np.abs(phase - np.floor(phase) - 0.5)))  # A triangle from 0 up.
    if region.get(sf.MOD_ENV_PITCH):
        parts.append(region.get(sf.MOD_ENV_PITCH) * _modulation(region, times))
    if note.vibrato:
        speed = 5.0 + 0.9 * ((note.pitch * 7 + note.velocity) % 10) / 10  # No two notes alike, no random state either.
        onset = np.clip((times - 0.12) / 0.3, 0, 1)
        parts.append(note.vibrato * onset * np.sin(2 * np.pi * speed * np.maximum(0, times - 0.12)))
    if note.glide:
        at, cents = zip(*note.glide, strict=True)
        parts.append(np.interp(times, at, cents))
    return np.sum(parts, axis=0) if parts else None


def _volume(region: sf.Region, note: Note, times: np.ndarray, release: float) -> np.ndarray:
    """Amplitude over time: delay, linear attack, hold, decay in decibels, release; velocity and attenuation included."""
    key = 60 - note.pitch
    delay, attack = _seconds(region.get(sf.DELAY)), _seconds(region.get(sf.ATTACK))
    hold = _seconds(region.get(sf.HOLD) + region.get(sf.KEY_TO_HOLD) * key)
    decay = _seconds(region.get(sf.DECAY) + region.get(sf.KEY_TO_DECAY) * key)
    sustain = float(np.clip(region.get(sf.SUSTAIN) / 10, 0, 100))
    falling = delay + attack + hold
    down = np.interp(times, [falling, falling + decay * sustain / 100], [0, sustain])
    down += 100 / release * np.maximum(0, times - note.duration)
    down += 0.04 * max(0, region.get(sf.ATTENUATION))  # 0.4 of the centibels, as the hardware that files are made for.
    down += region.get(sf.VELOCITY_DEPTH) / 24 * np.log10(127 / note.velocity)
    amplitude = np.exp(down * (-np.log(10) / 20))
    rising = np.searchsorted(times, delay + attack)
    amplitude[:rising] *= np.maximum(0, times[:rising] - delay) / attack
    return amplitude


def _modulation(region: sf.Region, times: np.ndarray) -> np.ndarray:
    """The modulation envelope over time, 0 to 1."""
    attack = _seconds(region.get(sf.MOD_ATTACK))
    falling = attack + _seconds(region.get(sf.MOD_HOLD))
    sustain = 1 - np.clip(region.get(sf.MOD_SUSTAIN) / 1000, 0, 1)
    decay = _seconds(region.get(sf.MOD_DECAY)) * (1 - sustain) + 1e-9
    return np.interp(times, [0, attack, falling, falling + decay], [0, 1, 1, sustain])


def _filter(audio: np.ndarray, region: sf.Region, note: Note, times: np.ndarray, rate: int) -> np.ndarray:
    """Two-pole low-pass whose cutoff follows the modulation envelope, and falls by up to an octave for soft notes."""
    from scipy.signal import lfilter

    cutoff = region.get(sf.FILTER_CUTOFF) - region.get(sf.BRIGHTNESS) * (1 - note.velocity / 127)
    depth = region.get(sf.MOD_ENV_FILTER)
    highest = 1200 * np.log2(0.42 * rate / 8.176)
    if min(cutoff, cutoff + depth) >= highest or not len(audio):
        return audio
    resonance = max(0, region.get(sf.FILTER_Q)) / 10
    if not depth:
        return lfilter(*_low_pass(min(cutoff, highest), resonance, rate), audio)
    cents = np.minimum(cutoff + depth * _modulation(region, times[: len(audio)]), highest)
    steps = np.round(cents / _CENTS_PER_FILTER_STEP)
    edges = [0, *(np.flatnonzero(np.diff(steps)) + 1), len(audio)]
    state = np.zeros(2)
    for start, stop in pairwise(edges):
        b, a = _low_pass(float(steps[start]) * _CENTS_PER_FILTER_STEP, resonance, rate)
        audio[start:stop], state = lfilter(b, a, audio[start:stop], zi=state)
    return audio


@lru_cache(maxsize=4_000)
def _low_pass(cents: float, resonance: float, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of a low-pass at `cents` above 8.176 Hz, with `resonance` in decibels above a Butterworth's."""
    omega = 2 * np.pi * min(_hertz(cents), 0.45 * rate) / rate
    alpha = np.sin(omega) / (2 * 10 ** ((resonance - 3.01) / 20))
    cos = np.cos(omega)
    b = np.array([(1 - cos) / 2, 1 - cos, (1 - cos) / 2]) / (1 + alpha)
    return b, np.array([1.0, -2 * cos / (1 + alpha), (1 - alpha) / (1 + alpha)])


def _amplifier(audio: np.ndarray, drive: float) -> np.ndarray:
    """Soft clipping followed by a speaker's roll-off, at about the input's level."""
    from scipy.signal import lfilter

    level = np.sqrt(np.mean(audio**2)) + 1e-9
    shaped = np.tanh(audio / (3 * level) * drive)
    shaped = lfilter([0.35], [1, -0.65], shaped)
    return shaped * level / (np.sqrt(np.mean(shaped**2)) + 1e-9)


def _offset(region: sf.Region, fine: int, coarse: int) -> int:
    """An address offset in samples."""
    return int(region.get(fine)) + 32768 * int(region.get(coarse))


def _seconds(timecents: float) -> float:
    return float(np.clip(2 ** (timecents / 1200), 0.001, 100))


def _hertz(cents: float) -> float:
    return 8.176 * 2 ** (cents / 1200)
