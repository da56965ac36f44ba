"""Accompaniments to a line from its own chords: by the player's other hand, or by a second instrument."""

import random
from collections.abc import Callable

from datamodules.music.composition.chance import clipped_gauss
from datamodules.music.composition.events import Note
from datamodules.music.composition.instruments import Instrument, fold
from datamodules.music.composition.line import Line, dynamics
from datamodules.music.composition.theory import Chord

# A figure writes (position in the chord, length, which chord tones from the bass up, loudness) in quarters.
Strike = tuple[float, float, tuple[int, ...], int]
Figure = Callable[[random.Random, Line, Chord], list[Strike]]


def accompany(
    rng: random.Random, line: Line, instrument: Instrument, seconds: float, below: int | None = None, soft: int = 14
) -> list[Note]:
    """An accompaniment on an instrument.

    Args:
        rng: Chooses the figure and plays.
        line: Melody and chords to go with.
        instrument: The instrument that plays it.
        seconds: Length of the clip.
        below: The highest key to use (for a player's own left hand: under the melody).
        soft: How much softer than the melody, in velocity.
    """
    waltz_or_march = line.melody.metre.name in ("3/4", "2/4")
    figure = rng.choice([name for name in instrument.figures if name != "oom_pah" or waltz_or_march])
    low = max(instrument.range[0], instrument.lowest)
    high = min(instrument.range[1], below if below is not None else 127, low + 36)
    high = max(high, low + 16)
    level = sum(n.velocity for n in line.notes) / len(line.notes) - soft
    notes: list[Note] = []
    voicing: list[int] | None = None
    for chord in line.melody.chords:
        voicing = _voiced(chord, line.melody.key.tonic, (low, high), voicing)
        for offset, length, tones, accent in _FIGURES[figure](rng, line, chord):
            position = chord.start + offset
            start = max(0.0, line.clock.seconds(position) + clipped_gauss(rng, 0.005, 0.01))
            if start > seconds - 0.15:
                return notes
            end = line.clock.seconds(position + length)
            for order, tone in enumerate(tones):
                octave, index = divmod(tone, len(voicing))
                pitch = fold(voicing[index] + 12 * octave, (low, high))
                shade = dynamics(line.melody.metre, position, 0.4) * 0.7 + accent + rng.gauss(0, 2)
                velocity = min(max(round(level + shade), 30), 118)
                at = start + order * instrument.roll
                notes.append(Note(at, max(0.06, end - at) * _TOUCH.get(figure, 0.95) + instrument.ring, pitch, velocity,
                                  swell=(-4.0, 0.0, -1.0) if instrument.sustained and end - start > 0.5 else ()))  # fmt: skip
    return notes


def _voiced(chord: Chord, tonic: int, bounds: tuple[int, int], before: list[int] | None) -> list[int]:
    """Bass, then three or four upper notes close to those of the chord before; all inside `bounds`, rising."""
    low, high = bounds
    bass = fold(tonic + chord.pitches[0], (low, low + 11))
    classes = [(tonic + p) % 12 for p in chord.pitches]
    floor = bass + 4 if high - low < 24 else max(bass + 7, min(48, high - 14))  # Close chords are muddy down there.
    options = []
    for start in range(floor, floor + 12):
        if start % 12 in classes:
            upper: list[int] = []
            pitch = start
            while len(upper) < 3 and pitch <= high:
                if pitch % 12 in classes:
                    upper.append(pitch)
                pitch += 1
            if len(upper) == 3:
                options.append(upper)
    if not options:
        return [bass, bass + 7, bass + 12, bass + 16][:4]
    wanted = before[1:4] if before else options[0]
    upper = min(options, key=lambda o: sum(abs(a - b) for a, b in zip(o, wanted, strict=False)))
    return [bass, *upper]


def _spread(duration: float, step: float) -> list[float]:
    return [i * step for i in range(max(1, round(duration / step)))]


def _block(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """Bass and chord together, held."""
    return [(0, chord.duration, (0, 1, 2, 3), 2)]


def _beats(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """Bass on the first beat, the chord on every pulse."""
    pulse = line.melody.metre.pulse
    return [
        (t, pulse, (0, 1, 2, 3) if t == 0 else (1, 2, 3), 4 if t == 0 else -4) for t in _spread(chord.duration, pulse)
    ]


def _oom_pah(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """Bass, then chords on the other beats."""
    step = 1.0 if line.melody.metre.name == "3/4" else 0.5
    return [(t, step, (0,) if t % line.melody.metre.bar == 0 else (1, 2, 3), 5 if t == 0 else -4)
            for t in _spread(chord.duration, step)]  # fmt: skip


def _alberti(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """Broken chord: low, high, middle, high."""
    order = (0, 2, 1, 2) if line.melody.metre.name != "6/8" else (0, 1, 2, 3, 2, 1)
    times = _spread(chord.duration, 0.5)
    return [(t, 0.5, (order[i % len(order)],), 3 if i == 0 else -3) for i, t in enumerate(times)]


def _rising(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """An arpeggio up through the chord, and down again where there is time."""
    order = (0, 1, 2, 3, 4 if line.clock.tempo < 110 else 2, 3, 2, 1)
    return [(t, chord.duration - t if i < 3 else 1.0, (order[i % 8],), 4 if i == 0 else -2)
            for i, t in enumerate(_spread(chord.duration, 0.5))]  # fmt: skip


def _flowing(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """The same in sixteenths, for slow pieces."""
    step = 0.25 if line.clock.tempo < 84 else 0.5
    order = (0, 1, 2, 3, 5, 3, 2, 1)
    return [(t, 1.0, (order[i % 8],), 3 if i == 0 else -4) for i, t in enumerate(_spread(chord.duration, step))]


def _picked(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """Thumb and fingers: alternating bass on the beats, treble strings between."""
    order = ((0,), (2,), (1,), (3,), (0,), (3,), (2,), (3,))
    return [(t, 1.0, order[i % 8], 3 if i % 4 == 0 else -3) for i, t in enumerate(_spread(chord.duration, 0.5))]


def _strummed(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """Down and up strokes, the ups lighter and thinner, some left out."""
    strikes: list[Strike] = []
    for index, t in enumerate(_spread(chord.duration, 0.5)):
        if index % 2 == 0:
            strikes.append((t, 0.5, (0, 1, 2, 3), 4 if index == 0 else -2))
        elif index % 4 == 3 or rng.random() < 0.4:
            strikes.append((t, 0.5, (3, 2), -8))
    return strikes


def _bass_line(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """One voice: the root on strong beats, other chord tones between."""
    pulse = line.melody.metre.pulse
    times = _spread(chord.duration, pulse)
    return [(t, pulse, (0 if i % 2 == 0 else rng.choice([1, 2]),), 2 if i == 0 else -2) for i, t in enumerate(times)]


def _drone(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """Two long notes."""
    return [(0, chord.duration, (0, 2), 0)]


def _counter(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """A slow second melody through the chord's upper notes."""
    half = chord.duration / 2 if chord.duration >= 2 else chord.duration
    return [(t, half, (rng.choice([1, 2, 3]),), 0) for t in _spread(chord.duration, half)]


def _off_beats(rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """Two short notes between the beats."""
    return [(t + 0.5, 0.5, (1, 2), -4) for t in _spread(chord.duration, 1.0)]


_FIGURES: dict[str, Figure] = {
    "block": _block,
    "beats": _beats,
    "oom_pah": _oom_pah,
    "alberti": _alberti,
    "rising": _rising,
    "flowing": _flowing,
    "picked": _picked,
    "strummed": _strummed,
    "bass_line": _bass_line,
    "drone": _drone,
    "counter": _counter,
    "off_beats": _off_beats,
}
_TOUCH = {"oom_pah": 0.6, "off_beats": 0.55, "beats": 0.8, "bass_line": 0.88}
"""Share of a note's length that sounds, of those figures that are not 0.95."""
