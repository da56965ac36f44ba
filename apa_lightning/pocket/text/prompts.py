"""Captions of the music that the pocket backbone knows: the paper's eight instruments, its eight genres, and duets.

A clip has the paper's own prompt in half of the draws (section 4.2), else another one that a musician may write. The words
are in ``vocabulary.yaml``.
"""

import random
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from apa_lightning.conditioning.caption_templates import TEMPLATES

_VOCABULARY: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("vocabulary.yaml").read_text(encoding="utf-8"))
INSTRUMENTS: dict[str, str] = _VOCABULARY["instruments"]
"""The paper's instruments, as prompts name them, and their AudioSet display names."""
GENRES: dict[str, str] = _VOCABULARY["genres"]
"""The paper's genres, as prompts name them, and their AudioSet display names."""
_SOLO, _GENRE, _DUET = _VOCABULARY["solo"], _VOCABULARY["genre"], _VOCABULARY["duet"]
DESCRIPTIONS = tuple(_VOCABULARY["descriptions"].split())
"""Words that describe any music, whoever plays it."""
OTHER_WORDS = tuple(_VOCABULARY["others"].split())
"""Other words of prompts, which the tokenizers learn."""
NEGATIVE_PROMPT = "low quality music"
"""The paper's negative prompt for genres and accompaniments."""


def solo_captions(instrument: str) -> list[str]:
    """Every wording for one instrument alone, the paper's first; as many, in the same order, for each instrument."""
    return [wording.format(name=instrument, a=with_article(instrument)) for wording in _SOLO]


def genre_captions(genre: str) -> list[str]:
    """Every wording for a band of one genre, the paper's first."""
    return [wording.format(name=genre, a=with_article(genre)) for wording in _GENRE]


def duet_captions(lead: str, accompaniment: str) -> list[str]:
    """Every wording for a melody with accompaniment; the first, the paper's, leaves the melody's instrument open."""
    names = {"lead": lead, "a_lead": with_article(lead)}
    names |= {"second": accompaniment, "a_second": with_article(accompaniment)}
    return [wording.format(**names) for wording in _DUET]


def label_captions(labels: Sequence[str]) -> list[str]:
    """AudioSet labels in each of the 15 templates, in their order."""
    return [template.replace("{}", label_text(labels)) for template in TEMPLATES]


def solo_caption(rng: random.Random, instrument: str) -> str:
    """A drawn caption of one instrument alone."""
    return _drawn(rng, solo_captions(instrument))


def genre_caption(rng: random.Random, genre: str) -> str:
    """A drawn caption of a band of one genre."""
    return _drawn(rng, genre_captions(genre))


def duet_caption(rng: random.Random, lead: str, accompaniment: str) -> str:
    """A drawn caption of a melody on ``lead`` over an accompaniment on ``accompaniment``."""
    return _drawn(rng, duet_captions(lead, accompaniment))


def label_text(labels: Sequence[str]) -> str:
    """AudioSet names as captions write them: ``["Violin, fiddle", "Cello"]`` -> ``"violin, fiddle, cello"``."""
    return ", ".join(label[:1].lower() + label[1:] for label in labels)


def with_article(name: str) -> str:
    """``"violin"`` -> ``"a violin"``, ``"organ"`` -> ``"an organ"``."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def plain(lead: str = "", accompaniment: str = "", genre: str = "") -> str:
    """The one plain wording of a meaning: the paper's, with the melody's instrument where a duet's is known.

    Args:
        lead: Instrument of the melody.
        accompaniment: Second instrument of a duet.
        genre: Genre of a band.
    """
    if genre:
        return _GENRE[0].format(name=genre)
    if accompaniment:
        return _DUET[1 if lead else 0].format(lead=lead, second=accompaniment)
    return _SOLO[0].format(name=lead)


def description(rng: random.Random) -> list[str]:
    """Up to two words that describe any music."""
    return rng.sample(DESCRIPTIONS, rng.choice([0, 1, 1, 2]))


def described(rng: random.Random, caption: str, words: Sequence[str]) -> str:
    """The caption with ``words`` before or after it, and sometimes a capital or a full stop, as people write."""
    for word in words:
        caption = rng.choice([f"{word} {caption}", f"{caption}, {word}"])
    caption = caption[0].upper() + caption[1:] if rng.random() < 0.4 else caption
    return f"{caption}." if rng.random() < 0.2 else caption


def held_out(caption: str) -> bool:
    """Whether a caption is kept from the training of the text encoder: one in ten, decided by the caption alone.

    The paper's own prompts are never held out.
    """
    return caption not in PAPER_PROMPTS and zlib.crc32(caption.encode()) % 10 == 0


def _drawn(rng: random.Random, captions: list[str]) -> str:
    """The paper's caption in half of the draws, else one of the others."""
    return captions[0] if rng.random() < 0.5 else rng.choice(captions[1:])


ASKED = {
    "instrument": {label: _SOLO[0].format(name=name) for name, label in INSTRUMENTS.items()},
    "genre": {label: _GENRE[0].format(name=name) for name, label in GENRES.items()},
    "accompaniment": {label: _DUET[0].format(second=name) for name, label in INSTRUMENTS.items()},
}
"""Prompts of the paper: for each of its tasks, the AudioSet label and the prompt."""

PAPER_PROMPTS = frozenset(
    [
        *(prompt for asked in ASKED.values() for prompt in asked.values()),
        *(_SOLO[1].format(name=name) for name in INSTRUMENTS),
        NEGATIVE_PROMPT,
    ]
)
"""All of the paper's prompts and negative prompts."""
