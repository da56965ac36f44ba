"""Notes in seconds on tracks, which the composer's modules write and the sampler reads."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Note:
    """One sounding note."""

    start: float  # Seconds from the start of the clip
    duration: float  # Seconds until it is released
    pitch: int  # MIDI key (60 = middle C), or the General MIDI percussion key on a drum track
    velocity: int  # 1 to 127
    vibrato: float = 0.0  # Depth in cents, 0 for none; it sets in after the attack
    # (seconds after the start, cents) breakpoints of a pitch bend: scoops, slides, falls
    glide: tuple[tuple[float, float], ...] = ()
    swell: tuple[float, ...] = ()  # Decibels at equally spaced points of the duration: a bow's or a breath's shape

    @property
    def end(self) -> float:
        """Second at which the note is released."""
        return self.start + self.duration


@dataclass(frozen=True)
class Track:
    """Notes of one player."""

    name: str  # What it is, "lead", "bass", "drums", ...
    program: int  # General MIDI program, 0 to 127; the kit for drums
    notes: tuple[Note, ...]  # In order of their starts
    drums: bool = False  # Whether pitches are percussion keys
    level: float = 0.0  # Decibels at which it sounds next to the other tracks, whatever its SoundFont's own loudness
    # (seconds, decibels) breakpoints over the whole clip: crescendi and phrase arches
    expression: tuple[tuple[float, float], ...] = ()
    drive: float = 0.0  # 0 for clean, about 1 to 8 for a distorted amplifier


@dataclass(frozen=True)
class Performance:
    """Everything that sounds in one clip; `tracks[0]` carries the melody."""

    tracks: tuple[Track, ...]  # The players
    seconds: float  # Length of the clip
    reverb: tuple[float, float] = (0.0, 0.0)  # (decay in seconds, wet share) of the room

    @property
    def lead(self) -> Track:
        """The track with the melody."""
        return self.tracks[0]


def trimmed(track: Track, seconds: float) -> Track:
    """The track without notes that would start in the clip's last moments, or after it."""
    return replace(track, notes=tuple(note for note in track.notes if note.start < seconds - 0.05))
