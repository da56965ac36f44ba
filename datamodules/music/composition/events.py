"""Notes in seconds on tracks, which the composer's modules write and the sampler reads."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Note:
    """One sounding note.

    Attributes:
        start: Seconds from the beginning of the clip.
        duration: Seconds until it is released.
        pitch: MIDI key (60 = middle C), or the General MIDI percussion key on a drum track.
        velocity: 1 to 127.
        vibrato: Depth in cents, 0 for none; it sets in after the attack.
        glide: (seconds after the start, cents) breakpoints of a pitch bend: scoops, slides, falls.
        swell: Decibels at equally spaced points of the duration: a bow's or a breath's shape.
    """

    start: float
    duration: float
    pitch: int
    velocity: int
    vibrato: float = 0.0
    glide: tuple[tuple[float, float], ...] = ()
    swell: tuple[float, ...] = ()

    @property
    def end(self) -> float:
        """Second at which the note is released."""
        return self.start + self.duration


@dataclass(frozen=True)
class Track:
    """Notes of one player.

    Attributes:
        name: What it is, "lead", "bass", "drums", ...
        program: General MIDI program, 0 to 127; the kit for drums.
        notes: In order of their starts.
        drums: Whether pitches are percussion keys.
        level: Decibels at which it sounds beside the other tracks, whatever its SoundFont's own loudness.
        expression: (seconds, decibels) breakpoints over the whole clip: crescendi and phrase arches.
        drive: 0 for clean, about 1 to 8 for a distorted amplifier.
    """

    name: str
    program: int
    notes: tuple[Note, ...]
    drums: bool = False
    level: float = 0.0
    expression: tuple[tuple[float, float], ...] = ()
    drive: float = 0.0


@dataclass(frozen=True)
class Performance:
    """Everything that sounds in one clip; `tracks[0]` carries the melody.

    Attributes:
        tracks: The players.
        seconds: Length of the clip.
        reverb: (decay in seconds, wet share) of the room.
    """

    tracks: tuple[Track, ...]
    seconds: float
    reverb: tuple[float, float] = (0.0, 0.0)

    @property
    def lead(self) -> Track:
        """The track with the melody."""
        return self.tracks[0]


def trimmed(track: Track, seconds: float) -> Track:
    """The track without notes that would start in the clip's last moments, or after it."""
    return replace(track, notes=tuple(note for note in track.notes if note.start < seconds - 0.05))
