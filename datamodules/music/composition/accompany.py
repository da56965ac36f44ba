"""Accompaniments to a line from its own chords: by the player's other hand, or by a second instrument."""

import random

from datamodules.music.composition.chance import clipped_gauss, rounded
from datamodules.music.composition.events import Note
from datamodules.music.composition.instruments import Instrument, fold
from datamodules.music.composition.line import Line, dynamics
from datamodules.music.composition.theory import Chord, close_voicings, nearest_voicing

#: (position in the chord, length, chord tones from the bass up, added loudness), in quarters.
Strike = tuple[float, float, tuple[int, ...], int]
#: Share of a note's length that sounds, of those patterns that are not at 0.95.
_TOUCH = {"oom_pah": 0.6, "off_beats": 0.55, "beats": 0.8, "bass_line": 0.88}


def accompany(
    rng: random.Random, line: Line, instrument: Instrument, seconds: float, below: int = 127, soft: int = 14
) -> list[Note]:
    """An accompaniment of a line on an instrument, in one of its patterns.

    It uses keys up to `below` (for a player's own left hand: under the melody) and is `soft` velocities softer than the melody.
    """
    waltz_or_march = line.melody.meter.name in ("3/4", "2/4")
    pattern = rng.choice([name for name in instrument.patterns if name != "oom_pah" or waltz_or_march])
    low = max(instrument.range[0], instrument.lowest)
    high = max(min(instrument.range[1], below, low + 36), low + 16)
    level = sum(n.velocity for n in line.notes) / len(line.notes) - soft
    notes: list[Note] = []
    voicing: list[int] = []
    for chord in line.melody.chords:
        voicing = _voiced(chord, line.melody.key.tonic, (low, high), voicing)
        for offset, length, tones, accent in _strikes(pattern, rng, line, chord):
            position = chord.start + offset
            start = max(0.0, line.clock.seconds(position) + clipped_gauss(rng, 0.005, 0.01))
            if start > seconds - 0.15:
                return notes
            end = line.clock.seconds(position + length)
            swell = (-4.0, 0.0, -1.0) if instrument.sustained and end - start > 0.5 else ()
            for order, tone in enumerate(tones):
                octave, index = divmod(tone, len(voicing))
                pitch = fold(voicing[index] + 12 * octave, (low, high))
                shade = dynamics(line.melody.meter, position, 0.4) * 0.7 + accent + rng.gauss(0, 2)
                velocity = rounded(level + shade, 30, 118)
                at = start + order * instrument.roll
                duration = max(0.06, end - at) * _TOUCH.get(pattern, 0.95) + instrument.ring
                notes.append(Note(at, duration, pitch, velocity, swell=swell))
    return notes


def _voiced(chord: Chord, tonic: int, bounds: tuple[int, int], before: list[int]) -> list[int]:
    """Bass, then three upper notes close to those of the chord before; all inside `bounds`, rising."""
    low, high = bounds
    bass = fold(tonic + chord.pitches[0], (low, low + 11))
    classes = {(tonic + p) % 12 for p in chord.pitches}
    floor = bass + 4 if high - low < 24 else max(bass + 7, min(48, high - 14))  # Close chords are muddy below that.
    options = close_voicings(classes, floor, 3, high)
    return [bass, *nearest_voicing(options, before[1:])] if options else [bass, bass + 7, bass + 12, bass + 16]


def _strikes(pattern: str, rng: random.Random, line: Line, chord: Chord) -> list[Strike]:
    """What a pattern plays during one chord."""
    meter, tempo, whole = line.melody.meter, line.clock.tempo, chord.duration
    upper = (1, 2, 3)
    order: tuple[int, ...]

    def times(step: float) -> list[tuple[int, float]]:
        """Numbers and positions of strikes every `step` quarters."""
        return [(i, i * step) for i in range(max(1, round(whole / step)))]

    match pattern:
        case "block":  # Bass and chord together, held.
            return [(0, whole, (0, *upper), 2)]
        case "drone":  # Two long notes.
            return [(0, whole, (0, 2), 0)]
        case "beats":  # Bass on the first beat, the chord on every beat.
            return [
                (t, meter.pulse, upper if i else (0, *upper), -4 if i else 4) for i, t in times(meter.pulse)
            ]  # fmt: skip
        case "oom_pah":  # Bass, then chords on the other beats.
            step = 1.0 if meter.name == "3/4" else 0.5
            return [(t, step, upper if t % meter.bar else (0,), -4 if i else 5) for i, t in times(step)]
        case "alberti":  # Broken chord: low, high, middle, high.
            order = (0, 2, 1, 2) if meter.name != "6/8" else (0, 1, 2, 3, 2, 1)
            return [(t, 0.5, (order[i % len(order)],), -3 if i else 3) for i, t in times(0.5)]
        case "rising":  # An arpeggio up through the chord, and down again where there is time.
            order = (0, 1, 2, 3, 4 if tempo < 110 else 2, 3, 2, 1)
            return [(t, whole - t if i < 3 else 1.0, (order[i % 8],), -2 if i else 4) for i, t in times(0.5)]
        case "flowing":  # The same in sixteenths, for slow pieces.
            order = (0, 1, 2, 3, 5, 3, 2, 1)
            return [(t, 1.0, (order[i % 8],), -4 if i else 3) for i, t in times(0.25 if tempo < 84 else 0.5)]
        case "picked":  # Thumb and fingers: alternating bass on the beats, treble strings between.
            order = (0, 2, 1, 3, 0, 3, 2, 3)
            return [(t, 1.0, (order[i % 8],), -3 if i % 4 else 3) for i, t in times(0.5)]
        case "strummed":  # Down and up strokes, the ups lighter and thinner, some left out.
            return [
                (t, 0.5, (3, 2), -8) if i % 2 else (t, 0.5, (0, *upper), -2 if i else 4)
                for i, t in times(0.5)
                if i % 2 == 0 or i % 4 == 3 or rng.random() < 0.4
            ]
        case "bass_line":  # One voice: the root on strong beats, other chord tones between.
            step = meter.pulse
            return [(t, step, (rng.choice([1, 2]) if i % 2 else 0,), -2 if i else 2) for i, t in times(step)]
        case "counter":  # A slow second melody through the chord's upper notes.
            half = whole / 2 if whole >= 2 else whole
            return [(t, half, (rng.choice(upper),), 0) for _, t in times(half)]
        case "off_beats":  # Two short notes between the beats.
            return [(t + 0.5, 0.5, (1, 2), -4) for _, t in times(1.0)]
    raise ValueError(f"tables/instruments.yaml: no pattern of accompaniment is called {pattern!r}")
