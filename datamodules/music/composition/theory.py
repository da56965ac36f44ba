"""Keys, meters, chords and the rhythm cells of melodies. Time is counted in quarter notes."""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from datamodules.music.composition.tables import read_table

NAMES = ("C", "D flat", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
MODES: dict[str, dict[str, tuple[int, ...]]] = read_table("modes")

Rhythm = tuple[float, ...]
_RHYTHMS = read_table("rhythms")
CELLS: dict[str, dict[str, tuple[Rhythm, ...]]] = _RHYTHMS["cells"]
"""Bars of rhythm in quarters by meter and density; a negative number is a rest."""
CADENCES: dict[str, tuple[Rhythm, ...]] = _RHYTHMS["cadences"]
"""Last bars of phrases by meter; they come to rest on a long note."""


@dataclass(frozen=True)
class Key:
    """A tonic (pitch class, 0 = C) and a mode of `MODES`."""

    tonic: int
    mode: str

    def __str__(self) -> str:
        return f"{NAMES[self.tonic]} {self.mode}"

    @property
    def harmony(self) -> tuple[int, ...]:
        """Semitones of the seven-note scale that chords are built on."""
        return MODES[self.mode]["harmony"]

    @property
    def scale(self) -> tuple[int, ...]:
        """Semitones of the scale of melodies (5 to 7 notes)."""
        return MODES[self.mode].get("melody", self.harmony)

    def semitones(self, degree: int) -> int:
        """Semitones of melody scale step `degree` above the tonic; any integer, 0 is the tonic."""
        octave, step = divmod(degree, len(self.scale))
        return 12 * octave + self.scale[step]


@dataclass(frozen=True)
class Meter:
    """A time signature."""

    name: str
    bar: float  # Length of a bar in quarters
    pulse: float  # Length of a beat in quarters

    def strength(self, position: float) -> int:
        """Weight of a position (quarters from the piece's first barline): 3 downbeat, 2 half-bar, 1 beat, 0 between."""
        inside = round(position % self.bar, 4)
        if inside == 0:
            return 3
        if self.name in ("4/4", "6/8") and inside == self.bar / 2:
            return 2
        return 1 if inside % self.pulse == 0 else 0


METERS = {
    m.name: m for m in (Meter("4/4", 4.0, 1.0), Meter("3/4", 3.0, 1.0), Meter("6/8", 3.0, 1.5), Meter("2/4", 2.0, 1.0))
}


@dataclass(frozen=True)
class Chord:
    """A chord over a span of time."""

    start: float  # Quarters
    duration: float  # Quarters
    degree: int  # Scale step of the root, 0 to 6
    pitches: tuple[int, ...]  # Pitch classes relative to the tonic, the root first


def chord(
    key: Key, degree: int, start: float, duration: float, sevenths: bool = False, dominant: bool = False
) -> Chord:
    """A triad or seventh chord on step `degree`, in quarters; minor keys get their leading tone on the fifth step.

    A `dominant` one is a major triad with a minor seventh whatever the key is (blues).
    """
    scale = key.harmony
    pitches = [scale[(degree + third) % 7] for third in (0, 2, 4, 6)[: 4 if sevenths else 3]]
    if key.mode in ("minor", "minor pentatonic") and degree % 7 == 4:
        pitches[1] = 11
    if dominant:
        pitches = [(pitches[0] + semitones) % 12 for semitones in (0, 4, 7, 10)[: len(pitches)]]
    return Chord(start, duration, degree % 7, tuple(pitches))


def chord_at(chords: Sequence[Chord], position: float) -> Chord:
    """The chord at a position in quarters; the first one for a pickup."""
    return next((c for c in reversed(chords) if c.start <= position + 1e-6), chords[0])


def close_voicings(classes: Collection[int], floor: int, count: int, highest: int = 127) -> list[list[int]]:
    """Every close chord of `count` MIDI keys of these pitch classes whose lowest key lies in the octave above `floor`."""
    keys = [key for key in range(floor, min(floor + 48, highest + 1)) if key % 12 in classes]
    chords = [keys[i : i + count] for i, key in enumerate(keys) if key < floor + 12]
    return [keys for keys in chords if len(keys) == count]


def nearest_voicing(options: list[list[int]], before: Sequence[int]) -> list[int]:
    """The option that moves least from the voicing `before`; the first one where `before` is empty."""
    return min(options, key=lambda keys: sum(abs(a - b) for a, b in zip(keys, before or options[0], strict=False)))


def harmonize(rng: random.Random, key: Key, meter: Meter, lengths: list[tuple[int, str, str]]) -> list[Chord]:
    """Chords without gaps for phrases of (bars, section letter, "half" or "full").

    Section "b" starts away from the tonic. A full cadence ends on the tonic's chord, a half cadence on a dominant's.
    """
    modal, blues = key.mode in ("dorian", "mixolydian", "phrygian"), key.mode == "blues"
    dominant = {"dorian": 6, "mixolydian": 6, "phrygian": 1}.get(key.mode, 4)
    sixth = 6 if modal or key.harmony[2] == 3 else 1
    after = {0: [3, 5, 3, 0, sixth], 3: [0, 4, 1], 5: [3, 1, 2], 1: [4, 6 if modal else 4], 4: [5, 0, 3], 2: [5, 3]}
    after |= {6: [2, 0, 5]}
    if blues:
        after = {0: [3, 0, 3, 4], 3: [0, 4], 4: [3, 0]}
    chords, at, remembered = [], 0.0, {}
    for bars, section, ending in lengths:
        if (section, bars) not in remembered:
            roots = [0 if section == "a" else rng.choice([3, 6] if modal else [3, 4] if blues else [3, 5, 4])]
            while len(roots) < bars - 1:
                roots.append(rng.choice(after[roots[-1]]))
            remembered[section, bars] = roots
        plan: list[tuple[int, ...]] = [(root,) for root in remembered[section, bars]]
        if ending == "full":  # The dominant comes just before the last bar.
            close = rng.choice([dominant, dominant, 4]) if modal else dominant
            plan[-1] = (close,) if len(plan) > 2 and rng.random() < 0.5 else (*plan[-1], close)
            plan.append((0,))
        else:
            plan.append((rng.choice([dominant, 3, 4]) if modal else dominant,))
        for bar in plan:
            for index, root in enumerate(bar):
                span = meter.bar / len(bar) if meter.name != "3/4" or len(bar) == 1 else (2.0, 1.0)[index]
                chords.append(chord(key, root, at, span, dominant=blues))
                at += span
    return chords
