"""Plays the eight genres: a small band per clip, from the patterns in `grooves`."""

import random
from dataclasses import dataclass, replace

from datamodules.music.composition import melody as composing
from datamodules.music.composition.chance import clipped_gauss, rounded, weighted
from datamodules.music.composition.events import Note, Performance, Track
from datamodules.music.composition.grooves import BASS_PATTERNS, DRUMS, ChordPart, Genre
from datamodules.music.composition.instruments import fold
from datamodules.music.composition.line import Clock, Line, perform
from datamodules.music.composition.theory import METERS, Chord, Key, chord, close_voicings, nearest_voicing

_BAR = 4.0
_LEAD_RANGE = (55, 91)


@dataclass(frozen=True)
class _Band:
    """What all players share."""

    rng: random.Random
    genre: Genre
    line: Line  # The tune with its chords and clock
    bars: int
    seconds: float  # Length of the clip

    def note(self, position: float, length: float, pitch: int, velocity: float, late: float = 0.004) -> Note | None:
        """A note in quarters as one in seconds; None outside the clip."""
        start = self.line.clock.seconds(position) + clipped_gauss(self.rng, late, 0.012)
        if start < 0 or start > self.seconds - 0.05:
            return None
        end = self.line.clock.seconds(position + length)
        return Note(start, max(0.04, end - start), pitch, rounded(velocity + self.rng.gauss(0, 3), 20, 125))

    def key_of(self, tone: int, position: float, bounds: tuple[int, int]) -> int:
        """MIDI key of chord tone `tone` at a position, inside `bounds`."""
        pitches = self.line.melody.chord_at(position).pitches
        return fold(self.line.melody.key.tonic + pitches[tone % len(pitches)], bounds)


def compose_genre(rng: random.Random, genre: Genre, seconds: float) -> tuple[Line, Performance]:
    """Compose a band's clip: the lead's line, and the whole performance, whose first track is the lead."""
    key = Key(rng.randrange(12), weighted(rng, genre.modes))
    tempo = rng.uniform(*genre.tempo)
    bars = max(4, int(seconds * tempo / 60 / _BAR) + 2)
    bars += -bars % 4
    harmony = _progression(rng, genre, key, bars)
    tonic = genre.lead_tonic + (key.tonic - genre.lead_tonic) % 12
    tune = composing.write(rng, key, METERS["4/4"], bars, genre.densities, harmony, leaps=0.3, tonic=tonic)
    swing = rng.uniform(*genre.swing)
    start = rng.choice([0.02, 0.02, -rng.choice([1, 2, 3]) * 60 / tempo])  # Some clips start inside a bar.
    start += tune.pickup * 60 / tempo if start > 0 else 0
    clock = Clock(tempo, start, tune.length, swing=swing, unit=genre.swing_unit)
    line = Line(genre.name, tune, clock, _lead(rng, genre, tune, clock, seconds))
    band = _Band(rng, genre, line, bars, seconds)
    bass = _bass(band)
    tracks = [_lead_track(rng, genre, line), bass]
    tracks += [_chords(band, part, number) for number, part in enumerate(rng.choice(genre.chords), 1)]
    tracks.append(_drums(band))
    room = (rng.uniform(0.2, 0.9), rng.uniform(0.03, 0.14))
    return line, Performance(tuple(t for t in tracks if t.notes), seconds, room)


def _progression(rng: random.Random, genre: Genre, key: Key, bars: int) -> list[Chord]:
    """A progression repeated over the bars; blues tunes and jazz's sixth step get dominant chords."""
    row, chords, at = rng.choice(genre.progressions), [], 0.0
    while at < bars * _BAR:
        for degree, length in row:
            if at >= bars * _BAR:
                break
            dominant = key.mode == "blues" or (genre.name == "jazz" and degree in (4, 5))
            span = min(length * _BAR, bars * _BAR - at)
            chords.append(chord(key, degree, at, span, sevenths=genre.sevenths, dominant=dominant))
            at += span
    return chords


def _lead(rng: random.Random, genre: Genre, tune: composing.Melody, clock: Clock, seconds: float) -> tuple[Note, ...]:
    """The melody as a performance, without what lies before the clip."""
    touch = (0.7, 0.95) if genre.name in ("reggae", "hip-hop", "disco") else (0.85, 1.0)
    level = rng.randint(84, 104)
    if clock.start >= 0:
        notes = perform(rng, tune, clock, touch, level, seconds)
    else:  # Play from zero, then move and trim.
        whole = perform(rng, tune, replace(clock, start=0.05), touch, level, seconds - clock.start)
        moved = (replace(n, start=n.start + clock.start - 0.05) for n in whole)
        cut = (replace(n, start=max(0.0, n.start), duration=min(n.duration, n.end)) for n in moved)
        notes = tuple(n for n in cut if n.duration > 0.1 and n.start < seconds - 0.1)
    if not notes:
        return ()
    mean = sum(n.pitch for n in notes) / len(notes)
    shift = min((12 * k for k in range(-3, 4)), key=lambda s: abs(mean + s - 70))
    return tuple(replace(n, pitch=fold(n.pitch + shift, _LEAD_RANGE)) for n in notes)


def _lead_track(rng: random.Random, genre: Genre, line: Line) -> Track:
    """The melody on one of the genre's instruments: vibrato on long notes and now and then a scoop from below."""
    notes = []
    for note in line.notes:
        scoops = note.duration > 0.3 and rng.random() < 0.15
        vibrato = 14.0 if note.duration > 0.4 else 0.0
        notes.append(replace(note, vibrato=vibrato, glide=((0.0, -150.0), (0.09, 0.0)) if scoops else ()))
    program = rng.choice(genre.leads)
    return Track("lead", program, tuple(notes), level=_level(rng, genre.levels[0]), drive=genre.lead_drive)


def _level(rng: random.Random, decibels: float) -> float:
    """The level with a small deviation, as of a mixing engineer."""
    return decibels + rng.uniform(-1.5, 1.5)


def _drums(band: _Band) -> Track:
    """A groove for the clip, ghost notes that come and go, a fill at the end of every fourth bar and a crash after it."""
    genre, rng = band.genre, band.rng
    groove, notes = rng.choice(genre.drums), []
    loud = {"X": 112, "x": 92, "o": 58}
    for bar in range(band.bars):
        pattern = dict(groove)
        if bar % 4 == 3 and rng.random() < 0.75:
            fill = rng.choice(genre.fills)
            first = min(steps.find(c) for steps in fill.values() for c in "Xxo" if c in steps)
            pattern = {name: steps[:first] + "." * (16 - first) for name, steps in pattern.items()}
            for name, steps in fill.items():
                pattern[name] = pattern.get(name, "." * 16)[:first] + steps[first:]
        if bar and bar % 4 == 0 and genre.crash and rng.random() < 0.7:
            pattern["crash"] = "X" + pattern.get("crash", "." * 16)[1:]
        for name, steps in pattern.items():
            for step, mark in enumerate(steps):
                if mark == "." or (mark == "o" and rng.random() < 0.2):
                    continue
                shade = 4 if step % 4 == 0 else -3 if name in ("hat", "ride", "shaker") else 0
                notes.append(band.note(bar * _BAR + step / 4, 0.5, DRUMS[name], loud[mark] + shade, 0.003))
    # A cymbal or open hat rings on after its stroke.
    kept = sorted((replace(n, duration=1.2) for n in notes if n), key=lambda n: (n.start, n.pitch))
    return Track("drums", genre.kit, tuple(kept), drums=True, level=_level(rng, genre.levels[2]))


def _bass(band: _Band) -> Track:
    """The bass part in one of the genre's patterns."""
    rng, genre = band.rng, band.genre
    pattern = rng.choice(genre.bass)
    bounds = (28, 43)
    chosen = rng.choice(BASS_PATTERNS[pattern]) if pattern in BASS_PATTERNS else ()
    notes = []
    for bar in range(band.bars):
        at = bar * _BAR
        if pattern == "walking":
            notes += _walk(band, at, bounds)
        elif pattern == "follow":  # The bass doubles the guitar's rhythm on the root.
            notes += [band.note(at + i / 2, 0.45, band.key_of(0, at + i / 2, bounds), 100) for i in range(8)]
        for position, length, tone in chosen:
            pitch = band.key_of(tone % 100, at + position, bounds) + (12 if tone >= 100 else 0)
            notes.append(band.note(at + position, length, pitch, 104 if position == 0 else 94))
    program, kept = rng.choice(genre.bass_programs), tuple(n for n in notes if n)
    return Track("bass", program, kept, level=_level(rng, genre.levels[1]))


def _walk(band: _Band, at: float, bounds: tuple[int, int]) -> list[Note | None]:
    """Four quarters: the root, chord tones, and a half step into the next bar's root."""
    root = band.key_of(0, at, bounds)
    following = band.key_of(0, at + _BAR, bounds)
    half = band.line.melody.chord_at(at + 2)
    second = band.key_of(band.rng.choice([1, 2]), at + 1, bounds)
    third = band.key_of(0 if half.start == at + 2 else band.rng.choice([1, 2, 3]), at + 2, bounds)
    pitches = [root, second, third, following + band.rng.choice([1, -1])]
    notes = [band.note(at + i, 0.92, pitch, 98 if i % 2 else 92) for i, pitch in enumerate(pitches)]
    if band.rng.random() < 0.2:
        notes.append(band.note(at + 1.5, 0.35, root, 76))
    return notes


def _chords(band: _Band, part: ChordPart, number: int) -> Track:
    """A chordal part: one rhythm for the clip, changed now and then, voices that move little."""
    rng, notes = band.rng, []
    program = rng.choice(part.programs)
    hits = rng.choice(part.hits) if part.hits else ()
    before: list[int] = []
    for bar in range(band.bars):
        at = bar * _BAR
        if part.voicing == "roll":
            notes += _banjo_roll(band, at)
            continue
        if len(part.hits) > 1 and rng.random() < 0.12:
            hits = rng.choice(part.hits)
        for position, length in hits:
            sounding = band.line.melody.chord_at(at + position)
            length = min(length, max(0.15, sounding.start + sounding.duration - at - position))
            before = _voicing(band, part.voicing, at + position, before)
            for order, pitch in enumerate(before):
                if note := band.note(at + position, length, pitch, 96 if position % 1 == 0 else 88):
                    notes.append(replace(note, start=note.start + order * part.strum))
    kept = tuple(n for n in notes if n)
    return Track(f"chords {number}", program, kept, level=_level(rng, part.level), drive=part.drive)


def _voicing(band: _Band, kind: str, position: float, before: list[int]) -> list[int]:
    """MIDI keys of the chord at a position in one of the voicings of `grooves.ChordPart`."""
    sounding = band.line.melody.chord_at(position)
    root = band.line.melody.key.tonic + sounding.pitches[0]
    if kind in ("power", "low power"):
        low = fold(root, (40, 51) if kind == "power" else (38, 49))
        fifth = (sounding.pitches[2] - sounding.pitches[0]) % 12
        return [low, low + fifth, low + 12] if kind == "power" else [low, low + fifth]
    classes = {(band.line.melody.key.tonic + p) % 12 for p in sounding.pitches}
    if kind == "shell" and len(sounding.pitches) == 4:
        classes.discard(root % 12)  # The bass has the root.
    floor = {"high": 62, "shell": 53}.get(kind, 55)
    return nearest_voicing(close_voicings(classes, floor, 4 if kind == "close" else 3), before)


def _banjo_roll(band: _Band, at: float) -> list[Note | None]:
    """Eight (or sixteen) notes a bar in three-finger order, the fifth string's drone on top."""
    order = band.rng.choice([(0, 1, 3, 0, 1, 3, 0, 3), (1, 0, 3, 1, 0, 3, 1, 2), (0, 1, 2, 3, 2, 1, 0, 3)])
    step = 0.5 if band.line.clock.tempo > 112 else 0.25
    strings = [*_voicing(band, "close", at, [])[:3], fold(band.line.melody.key.tonic + 7, (67, 78))]
    count = round(_BAR / step)
    return [band.note(at + i * step, step, strings[order[i % 8]], 92 if i % 4 == 0 else 82) for i in range(count)]
