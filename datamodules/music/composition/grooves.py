"""The eight genres as data: tempo, swing, harmony, drum patterns, basses, chordal parts and leads (`tables/genres.yaml`)."""

from dataclasses import dataclass

from datamodules.music.composition.tables import read_table

_TABLE = read_table("genres")

DRUMS: dict[str, int] = _TABLE["drum_keys"]
"""Name of a drum to its General MIDI percussion key."""
BASS_PATTERNS: dict[str, tuple[tuple[tuple[float, float, int], ...], ...]] = _TABLE["bass_patterns"]
"""One-bar bass patterns: (position, length, chord tone); "walking" and "follow" are functions of `genres`."""


@dataclass(frozen=True)
class ChordPart:
    """One player's chords."""

    programs: tuple[int, ...]  # General MIDI programs to choose from
    # One-bar rhythms to choose from; each is a row of (position, length) in quarters
    hits: tuple[tuple[tuple[float, float], ...], ...]
    # "close" (three or four notes near middle C), "power" (root, fifth, octave), "low power", "high", "shell", or
    # "roll", which is the banjo's and needs no hits
    voicing: str = "close"
    level: float = -5.0  # Decibels in the mix
    drive: float = 0.0  # Distortion
    strum: float = 0.0  # Seconds between the strings


@dataclass(frozen=True)
class Genre:
    """One genre; times are in quarters, 4/4 throughout."""

    name: str  # Name in the paper's prompts
    label: str  # AudioSet's display name
    tempo: tuple[float, float]  # Slowest and fastest, in quarters per minute
    modes: dict[str, float]  # Weights of the modes
    # Chord progressions to choose from; each is a row of (scale step, bars)
    progressions: tuple[tuple[tuple[int, float], ...], ...]
    drums: tuple[dict[str, str], ...]  # Grooves to choose from: drum to its 16 steps
    bass: tuple[str, ...]  # Bass patterns to choose from
    bass_programs: tuple[int, ...]  # General MIDI programs of the bass
    chords: tuple[tuple[ChordPart, ...], ...]  # Sets of chordal parts to choose from
    leads: tuple[int, ...]  # General MIDI programs of the melody
    densities: dict[str, float]  # Weights of the melody's kinds of rhythm
    # Smallest and largest place of the off-beat within `swing_unit`; 0.5 is straight
    swing: tuple[float, float] = (0.5, 0.5)
    swing_unit: float = 1.0  # Quarters
    sevenths: bool = False  # Whether chords have sevenths (see `theory.chord`)
    kit: int = 0  # General MIDI drum kit
    fills: tuple[dict[str, str], ...] = _TABLE["fills"]  # Drum fills to choose from
    lead_drive: float = 0.0  # Distortion of the lead
    levels: tuple[float, float, float] = (0.0, -1.0, 0.0)  # Decibels of lead, bass and drums
    lead_tonic: int = 60  # MIDI key near which the lead's tonic lies
    crash: bool = True  # Whether a crash cymbal may follow a fill


GENRES: dict[str, Genre] = {
    name: Genre(
        name=name, chords=tuple(tuple(ChordPart(**part) for part in row) for row in fields.pop("chords")), **fields
    )
    for name, fields in _TABLE["genres"].items()
}
