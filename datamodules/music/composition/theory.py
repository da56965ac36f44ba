"""Keys, metres, chords and the rhythm cells that melodies are made of. Time here is counted in quarter notes."""

import random
from dataclasses import dataclass

from datamodules.music.composition.tables import read_table

NAMES = ("C", "D flat", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")

# Scale for the harmony, scale for the melody; a pentatonic tune still has seven-note harmony under it.
MODES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "major": ((0, 2, 4, 5, 7, 9, 11), (0, 2, 4, 5, 7, 9, 11)),
    "minor": ((0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 8, 10)),
    "dorian": ((0, 2, 3, 5, 7, 9, 10), (0, 2, 3, 5, 7, 9, 10)),
    "mixolydian": ((0, 2, 4, 5, 7, 9, 10), (0, 2, 4, 5, 7, 9, 10)),
    "lydian": ((0, 2, 4, 6, 7, 9, 11), (0, 2, 4, 6, 7, 9, 11)),
    "phrygian": ((0, 1, 3, 5, 7, 8, 10), (0, 1, 3, 5, 7, 8, 10)),
    "major pentatonic": ((0, 2, 4, 5, 7, 9, 11), (0, 2, 4, 7, 9)),
    "minor pentatonic": ((0, 2, 3, 5, 7, 8, 10), (0, 3, 5, 7, 10)),
    "blues": ((0, 2, 4, 5, 7, 9, 10), (0, 3, 5, 6, 7, 10)),
}


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
        return MODES[self.mode][0]

    @property
    def scale(self) -> tuple[int, ...]:
        """Semitones of the scale that melodies walk on (5 to 7 notes)."""
        return MODES[self.mode][1]

    def semitones(self, degree: int) -> int:
        """Semitones of melody scale step `degree` above the tonic; any integer, 0 is the tonic."""
        octave, step = divmod(degree, len(self.scale))
        return 12 * octave + self.scale[step]


@dataclass(frozen=True)
class Metre:
    """A time signature. bar: length in quarters. pulse: the beat that is felt, in quarters."""

    name: str
    bar: float
    pulse: float

    def strength(self, position: float) -> int:
        """Weight of a position (quarters from the piece's first barline): 3 downbeat, 2 half-bar, 1 beat, 0 between."""
        inside = round(position % self.bar, 4)
        if inside == 0:
            return 3
        if self.name in ("4/4", "6/8") and inside == self.bar / 2:
            return 2
        return 1 if inside % self.pulse == 0 else 0


METRES = {
    m.name: m for m in (Metre("4/4", 4.0, 1.0), Metre("3/4", 3.0, 1.0), Metre("6/8", 3.0, 1.5), Metre("2/4", 2.0, 1.0))
}


@dataclass(frozen=True)
class Chord:
    """A chord over a span of time.

    Attributes:
        start, duration: Quarters.
        degree: Scale step of the root, 0 to 6.
        pitches: Pitch classes relative to the tonic, the root first.
    """

    start: float
    duration: float
    degree: int
    pitches: tuple[int, ...]


def chord(
    key: Key, degree: int, start: float, duration: float, sevenths: bool = False, dominant: bool = False
) -> Chord:
    """A triad or seventh chord on step `degree`; minor keys get their leading tone on the fifth step.

    Args:
        key: Key.
        degree: Scale step of the root.
        start: Start in quarters.
        duration: Length in quarters.
        sevenths: Whether to add the seventh.
        dominant: A major triad with a minor seventh whatever the key says (blues).
    """
    scale = key.harmony
    pitches = [scale[(degree + third) % 7] for third in (0, 2, 4, 6)[: 4 if sevenths else 3]]
    if key.mode in ("minor", "minor pentatonic") and degree % 7 == 4:
        pitches[1] = 11
    if dominant:
        root = pitches[0]
        pitches = [root, (root + 4) % 12, (root + 7) % 12, (root + 10) % 12][: len(pitches)]
    return Chord(start, duration, degree % 7, tuple(pitches))


Rhythm = tuple[float, ...]
_RHYTHMS = read_table("rhythms")

CELLS: dict[str, dict[str, tuple[Rhythm, ...]]] = _RHYTHMS["cells"]
"""Bars of rhythm in quarters by metre and density; a negative number is a rest."""

CADENCES: dict[str, tuple[Rhythm, ...]] = _RHYTHMS["cadences"]
"""Last bars of phrases by metre; they come to rest on a long note."""


def harmonize(rng: random.Random, key: Key, metre: Metre, lengths: list[tuple[int, str, str]]) -> list[Chord]:
    """Chords for a row of phrases.

    Args:
        rng: The only source of chance.
        key: Key.
        metre: Time signature.
        lengths: (bars, section letter, "half" or "full") per phrase. Section "b" starts away from the tonic.

    Returns:
        Chords without gaps; a full cadence ends on the tonic's chord, a half cadence on a dominant's.
    """
    modal = key.mode in ("dorian", "mixolydian", "phrygian")
    dominant = {"dorian": 6, "mixolydian": 6, "phrygian": 1}.get(key.mode, 4)
    minorish = key.harmony[2] == 3
    after = {0: [3, 5, 3, 0, 6 if modal or minorish else 1], 3: [0, 4, 1], 5: [3, 1, 2], 1: [4, 6 if modal else 4], 4: [5, 0, 3],
             2: [5, 3], 6: [2, 0, 5]}  # fmt: skip
    if key.mode == "blues":
        after = {0: [3, 0, 3, 4], 3: [0, 4], 4: [3, 0]}
    chords, at, remembered = [], 0.0, {}
    for bars, section, ending in lengths:
        if (section, bars) not in remembered:
            roots = [
                0 if section == "a" else rng.choice([3, 6] if modal else [3, 4] if key.mode == "blues" else [3, 5, 4])
            ]
            while len(roots) < bars - 1:
                roots.append(rng.choice(after[roots[-1]]))
            remembered[section, bars] = roots
        plan: list[tuple[int, ...]] = [(root,) for root in remembered[section, bars]]
        if ending == "full":  # The dominant comes just before the last bar.
            before = plan[-1][0]
            close = dominant if not modal else rng.choice([dominant, dominant, 4])
            plan[-1] = (close,) if len(plan) > 2 and rng.random() < 0.5 else (before, close)
        plan.append((0,) if ending == "full" else (dominant if not modal else rng.choice([dominant, 3, 4]),))
        for bar in plan:
            for index, root in enumerate(bar):
                span = metre.bar / len(bar) if metre.name != "3/4" or len(bar) == 1 else (2.0, 1.0)[index]
                chords.append(chord(key, root, at, span, dominant=key.mode == "blues"))
                at += span
    return chords
