"""Performs melodies: a tempo with give and take, dynamics that follow metre and phrase, articulation. No instrument yet."""

import math
import random
from dataclasses import dataclass

from datamodules.music.composition import melody as composing
from datamodules.music.composition.chance import clipped_gauss, weighted
from datamodules.music.composition.events import Note
from datamodules.music.composition.melody import Melody
from datamodules.music.composition.tables import read_table
from datamodules.music.composition.theory import METRES, Key, Metre

_BARS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


@dataclass(frozen=True)
class Character:
    """What kind of piece: weights of modes, metres and rhythm kinds, and how it is played.

    Attributes:
        tempo: Slowest and fastest, quarters per minute.
        touch: Share of a note's length that sounds.
        level: MIDI velocity around which it is played.
        rubato: 0 strict to 1 free.
        swing: Where the off-beat
        eighth falls within its quarter (0.5 is straight). leaps: share of melodic steps larger than a second.
    """

    modes: dict[str, float]
    metres: dict[str, float]
    tempo: tuple[float, float]
    densities: dict[str, float]
    touch: tuple[float, float] = (0.9, 1.0)
    level: tuple[int, int] = (68, 96)
    rubato: float = 0.4
    swing: float = 0.5
    leaps: float = 0.25


CHARACTERS: dict[str, Character] = {name: Character(**fields) for name, fields in read_table("characters").items()}


@dataclass(frozen=True)
class Clock:
    """Turns quarters into seconds.

    Attributes:
        tempo: Quarters per minute.
        start: Second of the first barline.
        length: Quarters in the piece.
        slow: Share by which the last two quarters broaden.
        rubato: Seconds of give and take, over `period` quarters.
        swing: Place of the off-beat within `unit` quarters, 0.5 straight.
    """

    tempo: float
    start: float
    length: float
    slow: float = 0.0
    rubato: float = 0.0
    period: float = 8.0
    swing: float = 0.5
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
    """A performed melody: the ground truth that every instrument shares.

    Attributes:
        character: Its name in `CHARACTERS` or a genre.
        melody: What is played.
        clock: When.
        notes: In seconds, pitches as written (no octave chosen yet).
    """

    character: str
    melody: Melody
    clock: Clock
    notes: tuple[Note, ...]


def compose_line(rng: random.Random, seconds: float) -> Line:
    """Composes a melody and performs it so that it fills a clip.

    Most melodies end in the clip, their last note ringing; about a quarter are longer than it and are cut.

    Args:
        rng: The only source of chance.
        seconds: Length of the clip.
    """
    name = rng.choice(list(CHARACTERS))
    character = CHARACTERS[name]
    key = Key(rng.randrange(12), weighted(rng, character.modes))
    metre = METRES[weighted(rng, character.metres)]
    head, tail = rng.uniform(0.02, 0.25), min(rng.uniform(0.2, 1.5), seconds / 5)
    slow = rng.uniform(0.1, 0.5) * character.rubato
    fitting = [b for b in _BARS if _within(_tempo(b * metre.bar + slow + 0.25, seconds - head - tail), character.tempo)]
    whole = bool(fitting) and rng.random() < 0.8
    if whole:
        bars = rng.choices(fitting, [0.4 if b in (2, 6, 12) else 1.0 for b in fitting])[0]
    else:
        tempo = rng.uniform(*character.tempo)
        bars = next(b for b in _BARS if b * metre.bar * 60 / tempo >= seconds or b == _BARS[-1])
    tune = composing.write(rng, key, metre, bars, character.densities, leaps=character.leaps)
    if whole:
        tempo = _tempo(tune.length + tune.pickup + slow, seconds - head - tail)
    clock = Clock(
        tempo,
        head + tune.pickup * 60 / tempo,
        tune.length,
        slow if whole else 0.0,
        0.05 * character.rubato * rng.random(),
        tune.phrases[0].end,
        character.swing if character.swing == 0.5 or metre.name == "4/4" else 0.5,
    )
    return Line(name, tune, clock, perform(rng, tune, clock, character.touch, rng.randint(*character.level), seconds))


def perform(
    rng: random.Random, tune: Melody, clock: Clock, touch: tuple[float, float], level: int, seconds: float
) -> tuple[Note, ...]:
    """Plays a melody: seconds and velocities.

    Args:
        rng: The only source of chance.
        tune: The melody.
        clock: Its tempo.
        touch: Smallest and largest share of a note's length that sounds; one is drawn for the piece, and
            short notes are played a little shorter.
        level: Velocity around which dynamics move.
        seconds: Length of the clip; notes that would start after it, or just before, are left out.
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
        velocity = level + dynamics(tune.metre, note.start, (note.start - phrase.start) / (phrase.end - phrase.start))
        velocity += 0.7 * (note.pitch - mean) + clipped_gauss(rng, 2.5, 6) - (5 if last else 0)
        played.append(Note(start, max(0.05, sounding), note.pitch, _velocity(velocity)))
    return tuple(played)


def dynamics(metre: Metre, position: float, progress: float) -> float:
    """Velocity to add for the metric weight of a position and for how far the phrase is (0 to 1): it swells and falls."""
    return (-3, 1, 3, 6)[metre.strength(position)] + 9 * math.sin(math.pi * min(max(progress, 0), 1) ** 0.8) - 4


def _velocity(value: float) -> int:
    return min(max(round(value), 30), 124)


def _tempo(quarters: float, seconds: float) -> float:
    return 60 * quarters / seconds


def _within(value: float, bounds: tuple[float, float]) -> bool:
    return bounds[0] <= value <= bounds[1]
