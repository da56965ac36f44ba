"""The paper's eight instruments: their ranges, and what a player does to a line on each of them."""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from datamodules.music.composition.chance import rounded
from datamodules.music.composition.events import Note
from datamodules.music.composition.line import Line
from datamodules.music.composition.tables import read_table


@dataclass(frozen=True)
class Instrument:
    """One instrument, from `tables/instruments.yaml`."""

    name: str  # Name in the paper's prompts
    label: str  # AudioSet's display name
    programs: dict[int, float]  # Weights of its General MIDI programs
    range: tuple[int, int]  # Lowest and highest MIDI key
    center: int  # MIDI key around which melodies lie best
    sustained: bool  # Whether it is bowed, blown or held; struck and plucked notes die away
    # Weights of what a solo consists of: "melody" alone, "accompanied" by the same player, or in "double stops"
    textures: dict[str, float]
    patterns: tuple[str, ...]  # Names of its patterns of accompaniment in `accompany`
    lowest: int  # Lowest MIDI key of an accompaniment
    ring: float = 0.0  # Seconds that the notes of an accompaniment ring on
    roll: float = 0.0  # Seconds between the notes of an accompaniment's chord


INSTRUMENTS: dict[str, Instrument] = {
    name: Instrument(name=name, **fields) for name, fields in read_table("instruments").items()
}


def octave_shift(line: Line, instrument: Instrument, away: int = 0) -> int:
    """Semitones (whole octaves) that bring a line wholly into the instrument's range and nearest to its center.

    For another register, `away` octaves are added, but not where the line would leave the range.
    """
    pitches = [note.pitch for note in line.notes]
    low, high = instrument.range
    mean = sum(pitches) / len(pitches)
    shifts = [12 * k for k in range(-5, 6)]
    inside = [s for s in shifts if min(pitches) + s >= low and max(pitches) + s <= high]
    best = min(inside or shifts, key=lambda s: (abs(mean + s - instrument.center), s))
    return best + 12 * away if best + 12 * away in inside else best


def fold(pitch: int, bounds: tuple[int, int]) -> int:
    """Move a MIDI key by octaves until it lies inside `bounds`."""
    while pitch < bounds[0]:
        pitch += 12
    while pitch > bounds[1]:
        pitch -= 12
    return pitch


def play(
    rng: random.Random,
    line: Line,
    instrument: Instrument,
    program: int,
    texture: str = "melody",
    shift: int | None = None,
) -> list[Note]:
    """Play a line as a player of the instrument does: same melody, same timing, the instrument's own technique.

    Pizzicato has no ornaments and no vibrato; the texture "double stops" adds a second voice below. The line moves by `shift`
    semitones, by default those of `octave_shift`; all notes lie inside the instrument's range.
    """
    shift = octave_shift(line, instrument) if shift is None else shift
    notes = [replace(n, pitch=fold(n.pitch + shift, instrument.range)) for n in line.notes]
    if texture == "double stops":
        notes = _second_voice(rng, line, notes, instrument)
    if program == 45:
        return [replace(n, duration=max(n.duration, 0.4)) for n in notes]
    played = _TECHNIQUES[instrument.name](rng, line, notes)
    return [n for n in played if instrument.range[0] <= n.pitch <= instrument.range[1]]


def _second_voice(rng: random.Random, line: Line, notes: list[Note], instrument: Instrument) -> list[Note]:
    """Add notes a third to a sixth below the longer notes, from the chord that sounds."""
    both = []
    for note, written in zip(notes, line.melody.notes, strict=False):
        both.append(note)
        if written.duration >= 1 and rng.random() < 0.75:
            tones = {(line.melody.key.tonic + p) % 12 for p in line.melody.chord_at(written.start).pitches}
            below = [p for p in range(note.pitch - 9, note.pitch - 2) if p % 12 in tones and p >= instrument.range[0]]
            if below:
                both.append(replace(note, pitch=below[-1], velocity=max(30, note.velocity - 12)))
    return both


def _bowed(rng: random.Random, line: Line, notes: list[Note]) -> list[Note]:
    """Vibrato on longer notes, a swell of the bow, now and then a slide into a leap or a trill."""
    played, previous = [], None
    depth = rng.uniform(8, 26)
    for note in notes:
        long = note.duration > 0.35
        leap = note.pitch - previous.pitch if previous and previous.start < note.start else 0
        slide = ((0.0, -100.0 * max(-3, min(3, leap))), (rng.uniform(0.05, 0.11), 0.0))
        glide = slide if abs(leap) >= 3 and long and rng.random() < 0.2 else ()
        swell = (-5.0, 0.0, 1.0, -2.0) if note.duration > 0.7 else (-2.0, 0.0, -1.0) if long else ()
        played += _trilled(rng, line, replace(note, vibrato=depth if long else 0.0, glide=glide, swell=swell), 0.05)
        previous = note
    return played


def _blown(rng: random.Random, line: Line, notes: list[Note]) -> list[Note]:
    """A light vibrato, a breath's swell, grace notes and trills."""
    played = []
    depth = rng.uniform(4, 14)
    for note in notes:
        long = note.duration > 0.4
        swell = (-4.0, 0.0, 0.0, -3.0) if long else (-1.0, 0.0, -2.0)
        note = replace(note, vibrato=depth if long else 0.0, swell=swell)
        played += _graced(rng, line, note, 0.05) if not long else _trilled(rng, line, note, 0.08)
    return played


def _held(rng: random.Random, line: Line, notes: list[Note]) -> list[Note]:
    """Keys have no dynamics on an organ: even velocities, clean releases, mordents."""
    even = [replace(note, velocity=88 + note.velocity // 12) for note in notes]
    return [played for note in even for played in _trilled(rng, line, note, 0.04, most=3)]


def _pedaled(rng: random.Random, line: Line, notes: list[Note]) -> list[Note]:
    """The pedal lets notes ring into the next; some pieces are played in octaves, some with grace notes."""
    pedal, octaves = rng.random() < 0.5, rng.random() < 0.12
    played = []
    for note in notes:
        ringing = replace(note, duration=note.duration + rng.uniform(0.1, 0.4)) if pedal else note
        played += _graced(rng, line, ringing, 0.03)
        if octaves:
            played.append(replace(ringing, pitch=note.pitch - 12, velocity=max(30, note.velocity - 8)))
    return played


def _plucked(rng: random.Random, line: Line, notes: list[Note]) -> list[Note]:
    """Strings ring until they are needed again; a glissando may lead into the first long note."""
    played = [replace(n, duration=n.duration + rng.uniform(0.6, 1.2)) for n in notes]
    target = next((n for n in notes if n.start > 1.0 and n.duration > 0.5), None)
    if target and rng.random() < 0.25:
        steps = sorted(p for p in range(target.pitch - 14, target.pitch) if _in_scale(line, p))
        for away, pitch in enumerate(reversed(steps), start=1):
            if (start := target.start - away * 0.045) > 0:
                played.append(Note(start, 0.5, pitch, max(35, target.velocity - 14 - away)))
    return played


def _fretted(rng: random.Random, line: Line, notes: list[Note]) -> list[Note]:
    """Hammered grace notes, slides from a fret or two away, a little finger vibrato; notes ring."""
    played = []
    for note in notes:
        long = note.duration > 0.5
        slide = ((0.0, rng.choice([-200.0, -100.0])), (0.07, 0.0)) if long and rng.random() < 0.12 else ()
        note = replace(note, duration=note.duration + 0.15, glide=slide, vibrato=6.0 if long else 0.0)
        played += _graced(rng, line, note, 0.05) if not slide else [note]
    return played


def _struck(rng: random.Random, line: Line, notes: list[Note]) -> list[Note]:
    """Bars do not sustain: long notes are rolled with two mallets."""
    rolling, played = rng.random() < 0.75, []
    for note in notes:
        if not rolling or note.duration < 0.55:
            played.append(replace(note, duration=max(note.duration, 0.3)))
            continue
        speed = rng.uniform(10.5, 13.5)
        count = max(3, round(note.duration * speed))
        for stroke in range(count):
            arch = 6 - 12 * abs(stroke / (count - 1) - 0.5)
            velocity = note.velocity + (4 if stroke == 0 else round(arch) - 8) + rng.randint(-2, 2)
            start = note.start + stroke * note.duration / count
            played.append(Note(start, 0.25, note.pitch, rounded(velocity, 30, 124)))
    return played


def _trilled(rng: random.Random, line: Line, note: Note, chance: float, most: int = 99) -> list[Note]:
    """The note, or with some chance a trill of at most `most` notes with the scale step above; 3 make a mordent."""
    if note.duration < 0.5 or note.duration > 1.6 or rng.random() >= chance:
        return [note]
    above = next(p for p in range(note.pitch + 1, note.pitch + 4) if _in_scale(line, p) or p == note.pitch + 3)
    unit = 1 / rng.uniform(11, 14)
    count = max(3, min(most, int(note.duration / unit) // 2 * 2 - 1))
    straight = replace(note, duration=unit * 1.02, vibrato=0.0, glide=(), swell=())
    played = [
        replace(straight, start=note.start + i * unit, pitch=above if i % 2 else note.pitch) for i in range(count)
    ]
    played[-1] = replace(played[-1], duration=max(note.duration - (count - 1) * unit, unit))
    return played


def _graced(rng: random.Random, line: Line, note: Note, chance: float) -> list[Note]:
    """The note, or with some chance a short note of the scale just before it."""
    if rng.random() >= chance or note.start < 0.1:
        return [note]
    side = rng.choice([1, -1])
    near = next(p for p in (note.pitch + side * k for k in (1, 2, 3)) if _in_scale(line, p) or abs(p - note.pitch) == 3)
    return [Note(note.start - 0.06, 0.07, near, max(30, note.velocity - 14)), note]


def _in_scale(line: Line, pitch: int) -> bool:
    return (pitch - line.melody.key.tonic) % 12 in line.melody.key.harmony


_TECHNIQUES: dict[str, Callable[[random.Random, Line, list[Note]], list[Note]]] = {
    "piano": _pedaled,
    "violin": _bowed,
    "cello": _bowed,
    "flute": _blown,
    "marimba": _struck,
    "organ": _held,
    "harp": _plucked,
    "acoustic guitar": _fretted,
}
