"""Captions of the music that the pocket backbone knows: the paper's eight instruments, its eight genres, and duets.

The words are in ``vocabulary.yaml``.
"""

import random
import zlib
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from apa_lightning.conditioning.caption_templates import TEMPLATES

_VOCABULARY: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("vocabulary.yaml").read_text(encoding="utf-8"))
INSTRUMENTS: dict[str, str] = _VOCABULARY["instruments"]
"""The paper's instruments, as prompts name them, and their AudioSet display names."""
GENRES: dict[str, str] = _VOCABULARY["genres"]
"""The paper's genres, as prompts name them, and their AudioSet display names."""
DESCRIPTIONS, OTHER_WORDS = _VOCABULARY["descriptions"].split(), _VOCABULARY["others"].split()
"""Words that describe any music, whoever plays it; other words of prompts, which the tokenizers learn."""
NEGATIVE_PROMPT = "low quality music"
"""The paper's negative prompt for genres and accompaniments."""


class Meaning(NamedTuple):
    """The meaning of a caption: one instrument alone, a melody with an accompaniment, or a band of one genre."""

    lead: str = ""  # Instrument of the melody
    accompaniment: str = ""  # Second instrument of a duet
    genre: str = ""

    @property
    def kind(self) -> str:
        """Either "solo", "duet" or "genre"."""
        return "genre" if self.genre else "duet" if self.accompaniment else "solo"

    @property
    def labels(self) -> list[str]:
        """AudioSet labels."""
        if self.genre:
            return [GENRES[self.genre]]
        return [INSTRUMENTS[name] for name in (self.lead, self.accompaniment) if name]

    def captions(self) -> list[str]:
        """Every wording, the paper's first; as many, in the same order, for each meaning of a kind.

        The paper's wording of a duet leaves the instrument of the melody open.
        """
        names = {"name": self.genre or self.lead, "lead": self.lead, "second": self.accompaniment}
        articles = {f"a_{key}": f"{'an' if name[:1] in 'aeiou' else 'a'} {name}" for key, name in names.items()}
        return [wording.format(**names, **articles) for wording in _VOCABULARY[self.kind]]

    def caption(self, rng: random.Random) -> str:
        """A drawn wording: the paper's in half of the draws (section 4.2), else one that a musician may write."""
        first, *others = self.captions()
        return first if rng.random() < 0.5 else rng.choice(others)

    def plain_captions(self) -> list[tuple[str, str]]:
        """Every wording, then the labels in each of the 15 templates, each with the one plain wording of its meaning."""
        first, *others = self.captions()
        plain = others[0] if self.kind == "duet" else first
        return [(first, first), *((text, plain) for text in [*others, *label_captions(self.labels)])]


MEANINGS = [
    *(Meaning(name) for name in INSTRUMENTS),
    *(Meaning(genre=name) for name in GENRES),
    *(Meaning(*names) for names in permutations(INSTRUMENTS, 2)),
]
"""Every meaning of a caption."""
ASKED = {
    "instrument": {label: Meaning(name).captions()[0] for name, label in INSTRUMENTS.items()},
    "genre": {label: Meaning(genre=name).captions()[0] for name, label in GENRES.items()},
    "accompaniment": {label: Meaning("", name).captions()[0] for name, label in INSTRUMENTS.items()},
}
"""Prompts of the paper: for each of its tasks, the AudioSet label and the prompt."""
PAPER_PROMPTS = frozenset(
    [
        *(prompt for asked in ASKED.values() for prompt in asked.values()),
        *(Meaning(name).captions()[1] for name in INSTRUMENTS),
        NEGATIVE_PROMPT,
    ]
)
"""All of the paper's prompts and negative prompts."""


def label_captions(labels: Sequence[str]) -> list[str]:
    """AudioSet labels in each of the 15 templates, in their order."""
    return [template.replace("{}", label_text(labels)) for template in TEMPLATES]


def label_text(labels: Sequence[str]) -> str:
    """AudioSet names as captions write them: ``["Violin, fiddle", "Cello"]`` -> ``"violin, fiddle, cello"``."""
    return ", ".join(label[:1].lower() + label[1:] for label in labels)


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
