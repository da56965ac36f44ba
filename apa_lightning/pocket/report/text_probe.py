"""Linear probes on embeddings of prompts, for the instrument, the genre and the task."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from torch import Tensor

from apa_lightning.conditioning.caption_templates import TEMPLATES
from apa_lightning.pocket.report.linear_probe import probe
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.text.prompts import (
    GENRES,
    INSTRUMENTS,
    duet_captions,
    genre_captions,
    held_out,
    label_captions,
    solo_captions,
)


@dataclass(frozen=True)
class Caption:
    """A caption, its meaning, and the wording it shares with others.

    Attributes:
        text: The caption.
        wording: Name of its wording.
        task: "timbre" (one instrument), "genre" or "accompaniment", the paper's three.
        instrument: The instrument that plays alone, or "".
        genre: The genre, or "".
        accompaniment: The second of two instruments, or "".
    """

    text: str
    wording: str
    task: str
    instrument: str = ""
    genre: str = ""
    accompaniment: str = ""


def captions() -> list[Caption]:
    """Every instrument, genre and pair in every wording of :mod:`prompts`, and its labels in the 15 templates."""
    rows = []
    for name, label in INSTRUMENTS.items():
        for wording, text in _worded("solo", solo_captions(name), [label]):
            rows.append(Caption(text, wording, "timbre", instrument=name))
    for name, label in GENRES.items():
        for wording, text in _worded("genre", genre_captions(name), [label]):
            rows.append(Caption(text, wording, "genre", genre=name))
    for lead, second in permutations(INSTRUMENTS, 2):
        for wording, text in _worded("duet", duet_captions(lead, second), [INSTRUMENTS[lead], INSTRUMENTS[second]]):
            rows.append(Caption(text, wording, "accompaniment", accompaniment=second))
    return list({row.text: row for row in rows}.values())


def text_scores(
    part: str,
    embed: Callable[[Sequence[str]], Tensor],
    untrained: Callable[[Sequence[str]], Tensor],
    seed: int,
    target: str = ">= 0.99",
) -> list[Score]:
    """Shares of captions whose instrument, genre and task a linear probe predicts, in wordings that it never saw.

    Args:
        part: The part that embeds.
        embed: Embeds B texts as (B, D).
        untrained: The same of the untrained part.
        seed: Seed of the intervals.
        target: Target of instrument, genre and task.
    """
    rows = captions()
    texts = [row.text for row in rows]
    vectors, random = embed(texts).numpy(), untrained(texts).numpy()
    scores = []
    for name, goal in (("instrument", target), ("genre", target), ("task", target), ("accompaniment", "")):
        chosen = [i for i, row in enumerate(rows) if getattr(row, name)]
        subset = [rows[i] for i in chosen]
        right, without = (_predicted(features[chosen], subset, name) for features in (vectors, random))
        compared = {"chance": 1 / len({getattr(row, name) for row in subset})}
        if unseen := [place for place, i in enumerate(chosen) if held_out(texts[i])]:
            compared = {f"{len(unseen)} captions kept from T5's training": float(right[unseen].mean()), **compared}
        title = f"linear probe on text: {name}"
        scores.append(Score.of(part, title, right, seed, without, compared=compared, target=goal))
    return scores


def _predicted(vectors: np.ndarray, rows: Sequence[Caption], name: str) -> np.ndarray:
    return probe(vectors, [getattr(row, name) for row in rows], [row.wording for row in rows])


def _worded(kind: str, texts: Sequence[str], labels: Sequence[str]) -> list[tuple[str, str]]:
    """(wording, caption) of one meaning; a template is one wording for all kinds."""
    own = [(f"{kind} {i}", text) for i, text in enumerate(texts)]
    return own + list(zip(TEMPLATES, label_captions(labels), strict=True))
