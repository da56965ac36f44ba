"""Performance of melodies without an instrument: tempo and rubato, dynamics of meter and phrase, articulation."""

import math
import random
from dataclasses import dataclass

from datamodules.music.composition import melody as composing
from datamodules.music.composition.chance import clipped_gauss, rounded, weighted
from datamodules.music.composition.events import Note
from datamodules.music.composition.melody import Melody
from datamodules.music.composition.tables import read_table
from datamodules.music.composition.theory import METERS, Key, Meter

_BARS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class Character:
    """A kind of piece: weights of modes, meters and rhythm kinds, and how it is played."""

    modes: dict[str, float]
    meters: dict[str, float]
    tempo: tuple[float, float]  # Slowest and fastest, in quarters per minute
    densities: dict[str, float]
    touch: tuple[float, float] = (0.9, 1.0)  # Smallest and largest share of a note's length that sounds
    level: tuple[int, int] = (68, 96)  # MIDI velocities around which it is played
    rubato: float = 0.4  # 0 strict to 1 free
    swing: float = 0.5  # Place of the off-beat eighth within its quarter; 0.5 is straight
    leaps: float = 0.25  # Share of melodic steps larger than a second


CHARACTERS: dict[str, Character] = {name: Character(**fields) for name, fields in read_table("characters").items()}


@dataclass(frozen=True)
class Clock:
    """Turns quarters into seconds."""

    tempo: float  # Quarters per minute
    start: float  # Second of the first barline
    length: float  # Quarters in the piece
    slow: float = 0.0  # Share by which the last two quarters broaden
    rubato: float = 0.0  # Seconds of give and take, over `period` quarters
    period: float = 8.0
    swing: float = 0.5  # Place of the off-beat within `unit` quarters, 0.5 straight
    unit: float = 1.0

    def seconds(self, position: float) -> float:
        """Second at which the position (quarters from the first barline) is played."""
        if self.swing != 0.5:
            whole, inside = divmod(position / self.unit, 1)
            inside = inside * 2 * self.swing if inside < 0.5 else self.swing + (inside - 0.5) * 2 * (1 - self.swing)
            position = (whole + inside) * self.unit
        late = max(0.0, position - (self.length - 2))
        quarters = position + self.slow * late * late / 4
        sway = self.rubato * math.sin(2 * math.pi * position / self.period)
        return self.start + quarters * 60 / self.tempo + sway


@dataclass(frozen=True)
class Line:
    """A performed melody: the ground truth that every instrument shares."""

    character: str  # Its name in `CHARACTERS` or a genre
    melody: Melody  # What is played
    clock: Clock  # When it is played
    notes: tuple[Note, ...]  # In seconds, pitches as written (no octave chosen yet)


def compose_line(rng: random.Random, seconds: float) -> Line:
    """Compose a melody and perform it so that it fills a clip.

    Most melodies end in the clip, their last note ringing; about a quarter are longer than it and are cut.
    """
    name = rng.choice(list(CHARACTERS))
    character = CHARACTERS[name]
    key = Key(rng.randrange(12), weighted(rng, character.modes))
    meter = METERS[weighted(rng, character.meters)]
    head, tail = rng.uniform(0.02, 0.25), min(rng.uniform(0.2, 1.5), seconds / 5)
    slow = rng.uniform(0.1, 0.5) * character.rubato
    sounding = seconds - head - tail
    slowest, fastest = character.tempo
    fitting = [b for b in _BARS if slowest <= 60 * (b * meter.bar + slow + 0.25) / sounding <= fastest]
    whole = bool(fitting) and rng.random() < 0.8
    if whole:
        bars = rng.choices(fitting, [0.4 if b in (2, 6, 12) else 1.0 for b in fitting])[0]
    else:
        tempo = rng.uniform(slowest, fastest)
        bars = next(b for b in _BARS if b * meter.bar * 60 / tempo >= seconds or b == _BARS[-1])
    tune = composing.write(rng, key, meter, bars, character.densities, leaps=character.leaps)
    if whole:
        tempo = 60 * (tune.length + tune.pickup + slow) / sounding
    clock = Clock(
        tempo,
        head + tune.pickup * 60 / tempo,
        tune.length,
        slow if whole else 0.0,
        0.05 * character.rubato * rng.random(),
        tune.phrases[0].end,
        character.swing if character.swing == 0.5 or meter.name == "4/4" else 0.5,
    )
    return Line(name, tune, clock, perform(rng, tune, clock, character.touch, rng.randint(*character.level), seconds))


def perform(
    rng: random.Random, tune: Melody, clock: Clock, touch: tuple[float, float], level: int, seconds: float
) -> tuple[Note, ...]:
    """Give the notes of a melody seconds and velocities.

    The share of a note's length that sounds is drawn from the limits `touch`; short notes are played a little shorter.
    Dynamics move around the velocity `level`. Notes that would start after the clip's end, or just before, are left out.
    """
    share = rng.uniform(*touch)
    mean = sum(note.pitch for note in tune.notes) / len(tune.notes)
    played = []
    for index, note in enumerate(tune.notes):
        phrase = tune.phrases[note.phrase]
        start = max(0.0, clock.seconds(note.start) + clipped_gauss(rng, 0.005, 0.012))
        end = clock.seconds(note.start + note.duration)
        last = index == len(tune.notes) - 1
        sounding = (end - start) * (share if note.duration < 2 and not last else max(share, 0.95))
        if start > seconds - 0.1:
            break
        velocity = level + dynamics(tune.meter, note.start, (note.start - phrase.start) / (phrase.end - phrase.start))
        velocity += 0.7 * (note.pitch - mean) + clipped_gauss(rng, 2.5, 6) - (5 if last else 0)
        played.append(Note(start, max(0.05, sounding), note.pitch, rounded(velocity, 30, 124)))
    return tuple(played)


def dynamics(meter: Meter, position: float, progress: float) -> float:
    """Velocity to add at a position, by its metric weight and the progress of its phrase (0 to 1), which swells and falls."""
    return (-3, 1, 3, 6)[meter.strength(position)] + 9 * math.sin(math.pi * min(max(progress, 0), 1) ** 0.8) - 4
