"""Composition of one clip from its number: its kind, its performance and its metadata."""

import random
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from apa_lightning.pocket.text.prompts import Meaning
from datamodules.music.composition.accompany import accompany
from datamodules.music.composition.chance import weighted
from datamodules.music.composition.events import Note, Performance, Track, trimmed
from datamodules.music.composition.genres import compose_genre
from datamodules.music.composition.grooves import GENRES, Genre
from datamodules.music.composition.instruments import INSTRUMENTS, Instrument, octave_shift, play
from datamodules.music.composition.line import Line, compose_line

PromptKind = Literal["melody", "sound"]
KINDS = ("solo", "duet", "genre")
_PLAYERS = list(INSTRUMENTS.values())


@dataclass(frozen=True)
class Recipe:
    """What a data set consists of; nothing else decides its clips."""

    seed: int = 0
    seconds: float = 10.24  # Length of the clips
    shares: tuple[float, float, float] = (7.0, 1.0, 2.0)  # Relative numbers of solos, duets and genre clips
    renditions: int = 1  # Number of instruments on which each solo melody and its performance is rendered
    prompts: float = 0.0  # Share of clips with an audio prompt
    prompt_kind: PromptKind = "melody"  # What it shares with its clip
    variety: float = 0.0  # How much tape, equalizer, microphone, noise and tuning change the sound; 0: not at all
    prompt_variety: float = 0.0  # The same for audio prompts
    captions: float = 0.0  # Share of clips with a `caption` in a musician's own words (duets always have one)


@dataclass(frozen=True)
class Plan:
    """What clip number `index` of a split is."""

    split: str
    index: int
    kind: str  # One of `KINDS`
    turn: int  # Number of clips of its kind before it, so that instruments and genres take turns
    melody: str  # Name of the tune; clips of one name have one performance
    rendition: int = 0  # Number of the rendition of the tune


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
    tune, rendition = divmod(turn, recipe.renditions if kind == "solo" else 1)
    return Plan(split, index, kind, turn, f"{split}-{kind}-{tune:07d}", rendition)


def compose(recipe: Recipe, plan: Plan) -> Clip:
    """Compose a clip. Nothing but the recipe and the plan decides the result."""
    rng = random.Random(f"{recipe.seed}/{plan.melody}")  # A string seed goes through SHA-512: the same everywhere.
    if plan.kind == "genre":
        clip = _genre(recipe, plan, rng)
    else:
        line = compose_line(rng, recipe.seconds)
        # The draws of the player must not depend on how many draws the tune took.
        player = random.Random(f"{recipe.seed}/{plan.melody}/{plan.kind}/{plan.rendition}")
        clip = (_duet if plan.kind == "duet" else _solo)(recipe, plan, line, player)
    words = random.Random(f"{recipe.seed}/{plan.split}/{plan.index}/caption")
    if words.random() < recipe.captions:
        fields = {"lead": "instrument", "accompaniment": "accompaniment", "genre": "genre"}
        meaning = Meaning(**{name: clip.metadata.get(field, "") for name, field in fields.items()})
        clip.metadata["caption"] = meaning.caption(words)
    return clip


def has_prompt(recipe: Recipe, plan: Plan) -> bool:
    """Whether a clip has an audio prompt."""
    return random.Random(f"{recipe.seed}/{plan.split}/{plan.index}/prompt").random() < recipe.prompts


def compose_prompt(recipe: Recipe, plan: Plan) -> Performance:
    """The audio prompt whose target is a clip.

    Of the kind "melody" it is the clip's melody alone, in the same time, on an instrument that does not play it in the clip:
    for a solo the same performance on another instrument, for a duet the melody that is accompanied, for a band its tune. Of
    the kind "sound" it is another melody on the instrument that plays the clip's, or of another band of the genre.
    """
    same = recipe.prompt_kind == "melody"
    tune = random.Random(f"{recipe.seed}/{plan.melody}{'' if same else '/other'}")  # the draws of `compose`, if same
    player = random.Random(f"{recipe.seed}/{plan.melody}/{plan.kind}/{plan.rendition}/prompt")
    if plan.kind == "genre":
        line, performance = compose_genre(tune, _genre_of(plan), recipe.seconds)
        if not same:
            return performance
        instrument = player.choice(_PLAYERS)
    else:
        line, own = compose_line(tune, recipe.seconds), compose(recipe, plan).metadata
        others = [one for one in _PLAYERS if plan.kind == "duet" or one.name != own["instrument"]]
        instrument = player.choice(others) if same else INSTRUMENTS[own["instrument"]]
    program = weighted(player, instrument.programs) if same else own["program"]
    notes = play(player, line, instrument, program)
    return _performance(recipe, [_track("lead", program, notes, player, line, instrument)], player)


def _instrument(recipe: Recipe, plan: Plan) -> Instrument:
    """The instrument of a solo."""
    count = len(_PLAYERS)
    if recipe.renditions == 1:
        return _PLAYERS[plan.turn % count]
    # The first instrument goes round, the others follow in an order of the melody's own.
    order = [0, *random.Random(f"{recipe.seed}/{plan.melody}/order").sample(range(1, count), count - 1)]
    return _PLAYERS[(plan.turn // recipe.renditions + order[plan.rendition % count]) % count]


def _genre_of(plan: Plan) -> Genre:
    return list(GENRES.values())[plan.turn % len(GENRES)]


def _solo(recipe: Recipe, plan: Plan, line: Line, rng: random.Random) -> Clip:
    instrument = _instrument(recipe, plan)
    # One and the same performance on each rendition: they are ground truth for timbre transfer.
    texture = "melody" if recipe.renditions > 1 else weighted(rng, instrument.textures)
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
    about = {"instrument": instrument.name, "program": program, "texture": texture}
    return Clip(_performance(recipe, tracks, rng), _metadata(recipe, plan, line, [instrument.label], shift, about))


def _duet(recipe: Recipe, plan: Plan, line: Line, rng: random.Random) -> Clip:
    count = len(_PLAYERS)
    lead = _PLAYERS[plan.turn % count]
    second = _PLAYERS[(plan.turn + 1 + (plan.turn // count + plan.turn) % (count - 1)) % count]
    program, second_program = weighted(rng, lead.programs), weighted(rng, second.programs)
    melody = play(rng, line, lead, program)
    below = sorted(n.pitch for n in melody)[len(melody) // 2]
    under = accompany(rng, line, second, recipe.seconds, below)
    tracks = [_track("lead", program, melody, rng, line, lead)]
    tracks.append(_track("accompaniment", second_program, under, rng, line, second, level=rng.uniform(-7, -3)))
    about = {"instrument": lead.name, "accompaniment": second.name, "program": program, "texture": "duet"}
    metadata = _metadata(recipe, plan, line, [lead.label, second.label], octave_shift(line, lead), about)
    metadata["caption"] = Meaning(lead.name, second.name).captions()[0]
    return Clip(_performance(recipe, tracks, rng), metadata)


def _genre(recipe: Recipe, plan: Plan, rng: random.Random) -> Clip:
    genre = _genre_of(plan)
    line, performance = compose_genre(rng, genre, recipe.seconds)
    about = {"genre": genre.name, "program": performance.lead.program}
    return Clip(performance, _metadata(recipe, plan, line, [genre.label], 0, about))


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
    expression, seconds = [], line.clock.seconds
    if instrument.sustained:
        depth = rng.uniform(0, 4)
        for phrase in line.melody.phrases:
            start, end = seconds(phrase.start), seconds(phrase.end)
            expression += [(start, -depth), (start + 0.55 * (end - start), 0.0)]
        expression.append((seconds(line.melody.length), -depth))
    ordered = sorted(notes, key=lambda n: (n.start, n.pitch))
    return Track(name, program, tuple(ordered), level=level, expression=tuple(expression))


def _performance(recipe: Recipe, tracks: list[Track], rng: random.Random) -> Performance:
    """The tracks in a small or, less often, a large room."""
    decay, wet = ((0.2, 0.8), (0.02, 0.12)) if rng.random() < 0.7 else ((1.0, 2.2), (0.08, 0.22))
    room = rng.uniform(*decay), rng.uniform(*wet)
    return Performance(tuple(trimmed(track, recipe.seconds) for track in tracks), recipe.seconds, room)


def _metadata(
    recipe: Recipe, plan: Plan, line: Line, labels: list[str], shift: int, about: dict[str, Any]
) -> dict[str, Any]:
    """The JSON next to a clip; `notes` are the melody's (start, end, key, velocity), ornaments left out."""
    melody = line.melody
    notes = [[round(n.start, 3), round(min(n.end, recipe.seconds), 3), n.pitch + shift, n.velocity] for n in line.notes]
    return {
        "labels": labels, "kind": plan.kind, **about, "key": str(melody.key), "metre": melody.meter.name,
        "tempo": round(line.clock.tempo, 2), "character": line.character, "melody": plan.melody,
        "rendition": plan.rendition, "seed": recipe.seed, "notes": notes,
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
