"""Composes one clip from its number: its kind, its performance and its metadata."""

import random
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from apa_lightning.pocket.text import prompts
from datamodules.music.composition.accompany import accompany
from datamodules.music.composition.chance import weighted
from datamodules.music.composition.events import Note, Performance, Track, trimmed
from datamodules.music.composition.genres import compose_genre
from datamodules.music.composition.grooves import GENRES
from datamodules.music.composition.instruments import INSTRUMENTS, Instrument, octave_shift, play
from datamodules.music.composition.line import Line, compose_line

KINDS = ("solo", "duet", "genre")


@dataclass(frozen=True)
class Recipe:
    """What a data set consists of; with `seed` it decides every clip.

    Attributes:
        seed: Any integer.
        seconds: Length of the clips.
        shares: Relative numbers of solos, duets and genre clips.
        renditions: On how many instruments each solo melody and its performance is rendered.
        variety: How much tape, equaliser, microphone, noise and tuning change the sound; 0: not at all.
        captions: Share of the clips whose `caption` is in a musician's own words (duets always have one).
    """

    seed: int = 0
    seconds: float = 10.24
    shares: tuple[float, float, float] = (7.0, 1.0, 2.0)
    renditions: int = 1
    variety: float = 0.0
    captions: float = 0.0


@dataclass(frozen=True)
class Plan:
    """What clip number `index` of a split is.

    Attributes:
        kind: One of `KINDS`.
        turn: How many of its kind came before, so that instruments and genres take turns.
        melody: Name of the tune; clips of one name have one performance.
        rendition: Counts them.
    """

    split: str
    index: int
    kind: str
    turn: int
    melody: str
    rendition: int = 0


@dataclass(frozen=True)
class Clip:
    """A composed clip: what sounds, its labels and everything else known about it."""

    performance: Performance
    metadata: dict[str, Any]


def plan(recipe: Recipe, split: str, index: int) -> Plan:
    """What a clip will be, without composing it: kinds are spread evenly, whatever the number of clips."""
    pattern = _pattern(recipe.shares)
    rounds, place = divmod(index, len(pattern))
    kind = pattern[place]
    turn = rounds * pattern.count(kind) + pattern[:place].count(kind)
    if kind == "solo" and recipe.renditions > 1:
        tune, rendition = divmod(turn, recipe.renditions)
        return Plan(split, index, kind, turn, f"{split}-solo-{tune:07d}", rendition)
    return Plan(split, index, kind, turn, f"{split}-{kind}-{turn:07d}")


def compose(recipe: Recipe, plan: Plan) -> Clip:
    """Composes a clip. Nothing but the recipe and the plan decides the result."""
    clip = _composed(recipe, plan)
    rng = random.Random(f"{recipe.seed}/{plan.split}/{plan.index}/caption")
    if rng.random() >= recipe.captions:
        return clip
    return replace(clip, metadata={**clip.metadata, "caption": _caption(rng, clip.metadata)})


def _caption(rng: random.Random, metadata: dict[str, Any]) -> str:
    """A musician's words for what a clip is."""
    if metadata["kind"] == "genre":
        return prompts.genre_caption(rng, metadata["genre"])
    if metadata["kind"] == "duet":
        return prompts.duet_caption(rng, metadata["instrument"], metadata["accompaniment"])
    return prompts.solo_caption(rng, metadata["instrument"])


def _composed(recipe: Recipe, plan: Plan) -> Clip:
    rng = random.Random(f"{recipe.seed}/{plan.melody}")  # A string seed goes through SHA-512: the same everywhere.
    if plan.kind == "genre":
        return _genre(recipe, plan, rng)
    line = compose_line(rng, recipe.seconds)
    # The hand that plays must not depend on how many draws the tune took.
    player = random.Random(f"{recipe.seed}/{plan.melody}/{plan.kind}/{plan.rendition}")
    return _duet(recipe, plan, line, player) if plan.kind == "duet" else _solo(recipe, plan, line, player)


def _solo(recipe: Recipe, plan: Plan, line: Line, rng: random.Random) -> Clip:
    names = list(INSTRUMENTS)
    if recipe.renditions > 1:  # The first instrument goes round, the others follow in an order of the melody's own.
        tune = plan.turn // recipe.renditions
        order = random.Random(f"{recipe.seed}/{plan.melody}/order").sample(range(1, len(names)), len(names) - 1)
        instrument = INSTRUMENTS[names[(tune + ([0, *order][plan.rendition % len(names)])) % len(names)]]
        texture = "melody"  # One and the same performance on each: the pairs are ground truth for timbre transfer.
    else:
        instrument = INSTRUMENTS[names[plan.turn % len(names)]]
        texture = weighted(rng, instrument.textures)
    program = weighted(rng, instrument.programs)
    # Now and then another register; not the lower one where the left hand plays, and never where renditions are compared.
    away = rng.choices([0, 1, -1], [6, 1, 0 if texture == "accompanied" else 1])[0]
    shift = octave_shift(line, instrument, away if recipe.renditions == 1 else 0)
    lead = play(rng, line, instrument, program, texture, shift)
    tracks = [_track("lead", program, lead, rng, line, instrument)]
    if texture == "accompanied":
        below = min(n.pitch for n in lead) + 4
        under = accompany(rng, line, instrument, recipe.seconds, below, soft=10 if instrument.sustained else 16)
        tracks.append(_track("accompaniment", program, under, rng, line, instrument, level=rng.uniform(-8, -4)))
    performance = Performance(tuple(trimmed(t, recipe.seconds) for t in tracks), recipe.seconds, _room(rng))
    return Clip(performance, _metadata(recipe, plan, line, [instrument.label], shift,
                                       instrument=instrument.name, program=program, texture=texture))  # fmt: skip


def _duet(recipe: Recipe, plan: Plan, line: Line, rng: random.Random) -> Clip:
    names = list(INSTRUMENTS)
    lead = INSTRUMENTS[names[plan.turn % len(names)]]
    away = 1 + (plan.turn // len(names) + plan.turn) % (len(names) - 1)
    second = INSTRUMENTS[names[(plan.turn + away) % len(names)]]
    program, second_program = weighted(rng, lead.programs), weighted(rng, second.programs)
    melody = play(rng, line, lead, program)
    below = sorted(n.pitch for n in melody)[len(melody) // 2]
    under = accompany(rng, line, second, recipe.seconds, below)
    tracks = (
        _track("lead", program, melody, rng, line, lead),
        _track("accompaniment", second_program, under, rng, line, second, level=rng.uniform(-7, -3)),
    )
    metadata = _metadata(recipe, plan, line, [lead.label, second.label], octave_shift(line, lead), instrument=lead.name,
                         accompaniment=second.name, program=program, texture="duet")  # fmt: skip
    metadata["caption"] = f"Duet, played with {second.name} accompaniment"
    return Clip(Performance(tuple(trimmed(t, recipe.seconds) for t in tracks), recipe.seconds, _room(rng)), metadata)


def _genre(recipe: Recipe, plan: Plan, rng: random.Random) -> Clip:
    genre = list(GENRES.values())[plan.turn % len(GENRES)]
    line, performance = compose_genre(rng, genre, recipe.seconds)
    return Clip(
        performance, _metadata(recipe, plan, line, [genre.label], 0, genre=genre.name, program=performance.lead.program)
    )


def _track(
    name: str,
    program: int,
    notes: list[Note],
    rng: random.Random,
    line: Line,
    instrument: Instrument,
    level: float = 0.0,
) -> Track:
    """A track in order of time, with phrase-long swells where the instrument can make them."""
    expression = []
    if instrument.sustained:
        depth = rng.uniform(0, 4)
        for phrase in line.melody.phrases:
            begin, end = line.clock.seconds(phrase.start), line.clock.seconds(phrase.end)
            expression += [(begin, -depth), (begin + 0.55 * (end - begin), 0.0)]
        expression.append((line.clock.seconds(line.melody.length), -depth))
    ordered = sorted(notes, key=lambda n: (n.start, n.pitch))
    return Track(name, program, tuple(ordered), level=level, expression=tuple(expression))


def _room(rng: random.Random) -> tuple[float, float]:
    """Reverberation: decay in seconds, wet share."""
    return (
        (rng.uniform(0.2, 0.8), rng.uniform(0.02, 0.12))
        if rng.random() < 0.7
        else (rng.uniform(1.0, 2.2), rng.uniform(0.08, 0.22))
    )


def _metadata(recipe: Recipe, plan: Plan, line: Line, labels: list[str], shift: int, **more: Any) -> dict[str, Any]:
    """The JSON beside a clip; `notes` are the melody's (start, end, key, velocity), ornaments left out."""
    return {
        "labels": labels, "kind": plan.kind, **more, "key": str(line.melody.key), "metre": line.melody.metre.name,
        "tempo": round(line.clock.tempo, 2), "character": line.character, "melody": plan.melody, "rendition": plan.rendition,
        "seed": recipe.seed,
        "notes": [[round(n.start, 3), round(min(n.end, recipe.seconds), 3), n.pitch + shift, n.velocity] for n in line.notes],
    }  # fmt: skip


@lru_cache(maxsize=16)
def _pattern(shares: tuple[float, float, float]) -> tuple[str, ...]:
    """Kinds of twenty clips in a row, as near to the shares as twenty allow and spread evenly."""
    total = sum(shares)
    row: list[str] = []
    for place in range(1, 21):
        lack = [share / total * place - row.count(kind) for kind, share in zip(KINDS, shares, strict=True)]
        row.append(KINDS[lack.index(max(lack))])
    return tuple(row)
