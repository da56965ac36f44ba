"""Composes melodies from motifs that are repeated, moved and varied, in phrases that breathe and close.

A melody knows nothing of instruments or seconds; `line.py` performs it and `instruments.py` gives it a sound.
"""

import random
from dataclasses import dataclass, field

from datamodules.music.composition.chance import weighted
from datamodules.music.composition.theory import CADENCES, CELLS, Chord, Key, Meter, chord_at, harmonize


@dataclass(frozen=True, slots=True)
class MelodyNote:
    """One note of a melody."""

    start: float  # Quarters from the first barline; a pickup's is negative
    duration: float  # Quarters
    pitch: int  # MIDI key
    phrase: int  # Number of its phrase


@dataclass(frozen=True)
class Phrase:
    """One phrase of a melody."""

    start: float  # Quarters
    end: float  # Quarters
    section: str  # Its letter
    ending: str  # "half" or "full"


@dataclass(frozen=True)
class Melody:
    """A tune with its harmony."""

    key: Key
    meter: Meter
    bars: int  # Number of bars
    notes: tuple[MelodyNote, ...]  # In order, without overlaps
    chords: tuple[Chord, ...]  # Without gaps from 0 to the end
    phrases: tuple[Phrase, ...]  # Without gaps from 0 to the end

    @property
    def length(self) -> float:
        """Quarters from the first barline to the last."""
        return self.bars * self.meter.bar

    @property
    def pickup(self) -> float:
        """Quarters that sound before the first barline."""
        return max(0.0, -self.notes[0].start)

    def chord_at(self, position: float) -> Chord:
        """The chord at a position in quarters; the first one for the pickup."""
        return chord_at(self.chords, position)


def form(bars: int) -> list[tuple[int, str, str]]:
    """Phrases (bars, section, ending) of a tune of `bars` bars: periods, AABA, and rows of them for longer ones."""
    if bars <= 3:
        return [(bars, "a", "full")]
    if bars == 12:
        return [(4, "a", "half"), (4, "a", "half"), (4, "b", "full")]
    if bars < 16:
        return [(bars // 2, "a", "half"), (bars - bars // 2, "a", "full")]
    pattern = [("a", "half"), ("a", "full"), ("b", "half"), ("a", "full"), ("c", "half"), ("a", "full")]
    phrases = [(4, *pattern[i % len(pattern)]) for i in range(bars // 4)]
    phrases[-1] = (4 + bars % 4, phrases[-1][1], "full")
    return phrases


def write(
    rng: random.Random,
    key: Key,
    meter: Meter,
    bars: int,
    densities: dict[str, float],
    chords: list[Chord] | None = None,
    leaps: float = 0.25,
    tonic: int | None = None,
) -> Melody:
    """Compose a melody.

    Args:
        rng: The only source of chance.
        key: Its tonic and mode.
        meter: Its time signature.
        bars: Number of bars.
        densities: Weights of the rhythm cells' kinds ("calm", "plain", "lively", "syncopated", "running").
        chords: Harmony to follow, from 0 to `bars`; without it one is made.
        leaps: Share of steps that are larger than a second.
        tonic: MIDI key of the tonic near which the tune lies, by default the one in C4..B4.
    """
    lengths = form(bars)
    harmony = chords or harmonize(rng, key, meter, lengths)
    writer = _Writer(rng, key, meter, densities, leaps, 60 + key.tonic if tonic is None else tonic, tuple(harmony))
    phrases, at = [], 0
    for number, (count, section, ending) in enumerate(lengths):
        writer.phrase(number, at, count, section, ending, last=number == len(lengths) - 1)
        phrases.append(Phrase(at * meter.bar, (at + count) * meter.bar, section, ending))
        at += count
    if rng.random() < 0.3:
        writer.pickup()
    return Melody(key, meter, bars, tuple(writer.notes), tuple(harmony), tuple(phrases))


@dataclass(frozen=True)
class _Motif:
    """One bar of material."""

    rhythm: tuple[float, ...]  # In quarters, rests negative
    steps: tuple[int, ...]  # Scale steps between its notes


@dataclass
class _Writer:
    """Writes a tune and remembers its sections, its last degree and the notes so far."""

    rng: random.Random
    key: Key
    meter: Meter
    densities: dict[str, float]
    leaps: float
    tonic: int
    chords: tuple[Chord, ...]
    notes: list[MelodyNote] = field(default_factory=list)
    sections: dict[str, tuple[list[_Motif], int]] = field(default_factory=dict)  # Motifs and first degree by letter

    def __post_init__(self) -> None:
        size = len(self.key.scale)
        # A tune's range in scale steps: about an octave and a third, lying above or around its tonic.
        self.low = -self.rng.choice([0, 1, size // 2, size // 2])
        self.high = self.low + size + self.rng.choice([1, 2, 3])
        self.degree = self.rng.choice([0, 0, 2, size // 2 + 1])

    def phrase(self, number: int, first_bar: int, bars: int, section: str, ending: str, last: bool) -> None:
        """Write one phrase; a section that returns starts as it started before."""
        if section not in self.sections:
            material = self._material(max(1, bars - 1))
            self.sections[section] = material, self.degree + (0 if section == "a" else self.rng.choice([1, 2, 3]))
        material, self.degree = self.sections[section]
        for index in range(bars - 1):
            motif = material[index % len(material)]
            if number and index == bars - 2 and self.rng.random() < 0.35:
                motif = self._varied(motif)
            self._bar(motif, (first_bar + index) * self.meter.bar, number)
        self._cadence((first_bar + bars - 1) * self.meter.bar, number, ending, last)

    def pickup(self) -> None:
        """Up to a beat of notes that lead by step into the first one."""
        first = self.notes[0]
        if first.start > 0:
            return
        degree = min(range(-12, 25), key=lambda d: abs(self.tonic + self.key.semitones(d) - first.pitch))
        rhythm = self.rng.choice([[1.0], [0.5, 0.5], [0.5]])
        side = -1 if degree > self.low + 1 else 1
        at = -sum(rhythm)
        for index, length in enumerate(rhythm):
            away = len(rhythm) - index
            self.notes.insert(index, MelodyNote(at, length, self._pitch(degree + side * away, self.chords[0]), 0))
            at += length

    def _material(self, bars: int) -> list[_Motif]:
        """Motifs for the bars before a cadence: an idea, the idea moved or varied, then something that drives on."""
        idea = self._motif()
        plan = [idea]
        if bars >= 2:
            inverted = _Motif(idea.rhythm, tuple(-step for step in idea.steps))
            plan.append(self.rng.choice([idea, self._varied(idea), inverted, self._motif()]))
        while len(plan) < bars:
            plan.append(self.rng.choice([self._motif(), self._varied(plan[-1]), idea]))
        return plan

    def _motif(self) -> _Motif:
        density = weighted(self.rng, self.densities)
        rhythm = self.rng.choice(CELLS[self.meter.name][density])
        count = sum(length > 0 for length in rhythm)
        direction = self.rng.choice([1, 1, -1])
        steps: list[int] = []
        turn = self.rng.randint(count // 2, count)
        for index in range(1, count):
            heading = direction if index < turn else -direction
            size = self.rng.choice([2, 2, 3, 4]) if self.rng.random() < self.leaps and rhythm[0] > 0.25 else 1
            roll = self.rng.random()
            step = 0 if roll < 0.12 else heading * size if roll < 0.8 else -heading
            if steps and abs(steps[-1]) > 2:  # After a leap the line turns back by step.
                step = -1 if steps[-1] > 0 else 1
            steps.append(step)
        return _Motif(tuple(float(length) for length in rhythm), tuple(steps))

    def _varied(self, motif: _Motif) -> _Motif:
        """The same idea with its longest note split, or its last steps changed."""
        rhythm, steps = list(motif.rhythm), list(motif.steps)
        longest = max(range(len(rhythm)), key=lambda index: rhythm[index])
        if rhythm[longest] >= 1 and self.rng.random() < 0.5:
            index = sum(length > 0 for length in rhythm[:longest])
            rhythm[longest : longest + 1] = [rhythm[longest] / 2] * 2
            steps.insert(index, self.rng.choice([1, -1]))
        elif steps:
            steps[-1] = self.rng.choice([1, -1, 2, -2, 0])
        return _Motif(tuple(rhythm), tuple(steps))

    def _bar(self, motif: _Motif, start: float, phrase: int) -> None:
        """Write a motif from near the last degree, chord tones where the meter is strong."""
        position, index, degree = start, 0, self.degree
        for length in motif.rhythm:
            if length < 0:
                position -= length
                continue
            harmony, before = chord_at(self.chords, position), degree
            if index:
                degree = self._folded(degree + motif.steps[index - 1], degree)
            if not index or self.meter.strength(position) >= 2 or (length >= 1 and self.meter.strength(position)):
                step = motif.steps[index - 1] if index else 0
                degree = self._chord_tone(degree, harmony, moving=step, unlike=before if step else None)
            self.notes.append(MelodyNote(position, length, self._pitch(degree, harmony), phrase))
            position += length
            index += 1
        self.degree = self._folded(degree + self.rng.choice([-1, 1, 1, 0, -2]), degree)

    def _cadence(self, start: float, phrase: int, ending: str, last: bool) -> None:
        """The last bar: stepwise into a chord tone (the tonic for a full close) that is held."""
        rhythm = self.rng.choice(CADENCES[self.meter.name])
        harmony = chord_at(self.chords, start + self.meter.bar - 0.01)
        size = len(self.key.scale)
        if ending == "full":
            goal = min((size * k for k in (-1, 0, 1)), key=lambda d: (abs(d - self.degree), d))
            goal += 2 if not last and size == 7 and self.rng.random() < 0.2 else 0
        else:
            goal = self._chord_tone(self.degree, harmony)
        side = 1 if self.degree > goal or (self.degree == goal and self.rng.random() < 0.6) else -1
        position = start
        for index, length in enumerate(rhythm):
            away = len(rhythm) - 1 - index
            degree = goal + side * (away if away < 3 else 4 - away)
            if not last and index == len(rhythm) - 1 and length > 1 and self.rng.random() < 0.6:
                length -= 0.5  # A breath.
            self.notes.append(MelodyNote(position, length, self._pitch(degree, harmony), phrase))
            position += length
        self.degree = goal

    def _folded(self, degree: int, before: int) -> int:
        """`degree`, turned back where it would leave the tune's range."""
        if self.low <= degree <= self.high:
            return degree
        return min(max(2 * before - degree, self.low), self.high)

    def _chord_tone(self, degree: int, harmony: Chord, moving: int = 0, unlike: int | None = None) -> int:
        """The scale step of the chord that is nearest to `degree`, but not `unlike`; `degree` itself where none is near.

        Of two that are equally near, the one in the direction `moving` wins.
        """
        near = sorted(range(degree - 2, degree + 3), key=lambda d: (abs(d - degree), -d if moving >= 0 else d))
        inside = [d for d in near if d != unlike and self._semitones(d, harmony) % 12 in harmony.pitches]
        return inside[0] if inside else degree

    def _semitones(self, degree: int, harmony: Chord) -> int:
        """Semitones above the tonic; the seventh of a minor key is raised over chords with a leading tone."""
        semitones = self.key.semitones(degree)
        return semitones + 1 if semitones % 12 == 10 and 11 in harmony.pitches else semitones

    def _pitch(self, degree: int, harmony: Chord) -> int:
        return self.tonic + self._semitones(degree, harmony)
