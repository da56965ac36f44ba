"""The eight genres as data: tempo, swing, harmony, drum patterns, basses, chordal parts and leads (`tables/genres.yaml`)."""

from dataclasses import dataclass

from datamodules.music.composition.tables import read_table

_TABLE = read_table("genres")

DRUMS: dict[str, int] = _TABLE["drum_keys"]
"""Name of a drum to its General MIDI percussion key."""

BASS_FIGURES: dict[str, tuple[tuple[tuple[float, float, int], ...], ...]] = _TABLE["bass_figures"]
"""One-bar bass patterns: (position, length, chord tone); "walking" and "follow" are functions of `genres`."""


@dataclass(frozen=True)
class ChordPart:
    """One player's chords.

    Attributes:
        programs: General MIDI programs to choose from.
        hits: One-bar rhythms to choose from; each is a row of (position, length) in quarters.
        voicing: "close" (three or four notes near middle C), "power" (root, fifth, octave), "low power", "high", "shell",
            or "roll", which is the banjo's and needs no hits.
        level: Decibels in the mix.
        drive: Distortion.
        strum: Seconds between the strings.
    """

    programs: tuple[int, ...]
    hits: tuple[tuple[tuple[float, float], ...], ...]
    voicing: str = "close"
    level: float = -5.0
    drive: float = 0.0
    strum: float = 0.0


@dataclass(frozen=True)
class Genre:
    """One genre; times are in quarters, 4/4 throughout.

    Attributes:
        name: Name in the paper's prompts.
        label: AudioSet's display name.
        tempo: Slowest and fastest, in quarters per minute.
        modes: Weights of the modes.
        progressions: Chord progressions to choose from; each is a row of (scale step, bars).
        drums: Grooves to choose from: drum to its 16 steps.
        bass: Bass figures to choose from.
        bass_programs: General MIDI programs of the bass.
        chords: Sets of chordal parts to choose from.
        leads: General MIDI programs of the melody.
        densities: Weights of the melody's kinds of rhythm.
        swing: Smallest and largest place of the off-beat within `swing_unit`; 0.5 is straight.
        swing_unit: Quarters.
        sevenths: Whether chords have sevenths (see `theory.chord`).
        kit: General MIDI drum kit.
        fills: Drum fills to choose from.
        lead_drive: Distortion of the lead.
        levels: Decibels of lead, bass and drums.
        lead_tonic: MIDI key near which the lead's tonic lies.
        crash: Whether a crash cymbal may follow a fill.
    """

    name: str
    label: str
    tempo: tuple[float, float]
    modes: dict[str, float]
    progressions: tuple[tuple[tuple[int, float], ...], ...]
    drums: tuple[dict[str, str], ...]
    bass: tuple[str, ...]
    bass_programs: tuple[int, ...]
    chords: tuple[tuple[ChordPart, ...], ...]
    leads: tuple[int, ...]
    densities: dict[str, float]
    swing: tuple[float, float] = (0.5, 0.5)
    swing_unit: float = 1.0
    sevenths: bool = False
    kit: int = 0
    fills: tuple[dict[str, str], ...] = _TABLE["fills"]
    lead_drive: float = 0.0
    levels: tuple[float, float, float] = (0.0, -1.0, 0.0)
    lead_tonic: int = 60
    crash: bool = True


def _genre(name: str, chords: tuple, **fields) -> Genre:
    parts = tuple(tuple(ChordPart(**part) for part in row) for row in chords)
    return Genre(name=name, chords=parts, **fields)


GENRES: dict[str, Genre] = {name: _genre(name, **fields) for name, fields in _TABLE["genres"].items()}
