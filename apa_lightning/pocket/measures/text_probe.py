"""Linear probes on embeddings of prompts, for the instrument, the genre and the task."""

from collections.abc import Callable, Sequence

from torch import Tensor

from apa_lightning.conditioning.caption_templates import TEMPLATES
from apa_lightning.pocket.measures.linear_probe import probe
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.text.prompts import MEANINGS, Meaning, held_out, label_captions

#: What the probes predict of a meaning, and the target; empty where there is none. Captions without a value do not count.
PROBES: dict[str, tuple[Callable[[Meaning], str], str]] = {
    "instrument": (lambda meaning: meaning.lead if meaning.kind == "solo" else "", ">= 0.99"),
    "genre": (lambda meaning: meaning.genre, ">= 0.99"),
    "task": (lambda meaning: meaning.kind, ">= 0.99"),
    "accompaniment": (lambda meaning: meaning.accompaniment, ""),
}


def worded_captions() -> dict[str, tuple[str, Meaning]]:
    """Wording and meaning of every caption, and of all labels in the 15 templates; a template is one wording for all."""
    rows: dict[str, tuple[str, Meaning]] = {}
    for meaning in MEANINGS:
        rows |= {text: (f"{meaning.kind} {i}", meaning) for i, text in enumerate(meaning.captions())}
        rows |= {
            text: (wording, meaning) for wording, text in zip(TEMPLATES, label_captions(meaning.labels), strict=True)
        }
    return rows


def text_scores(
    part: str, embed: Callable[[Sequence[str]], Tensor], untrained: Callable[[Sequence[str]], Tensor], seed: int
) -> list[Score]:
    """Shares of captions whose instrument, genre and task a linear probe predicts, in wordings that it never saw.

    The part, trained and untrained, embeds B texts as (B, D).
    """
    rows = worded_captions()
    texts, scores = list(rows), []
    vectors, random = embed(texts).numpy(), untrained(texts).numpy()
    for name, (read, target) in PROBES.items():
        answers = [read(meaning) for _, meaning in rows.values()]
        chosen = [i for i, answer in enumerate(answers) if answer]
        classes = [answers[i] for i in chosen]
        wordings = [rows[texts[i]][0] for i in chosen]
        right, without = (probe(features[chosen], classes, wordings) for features in (vectors, random))
        compared = {"chance": 1 / len(set(classes))}
        if unseen := [place for place, i in enumerate(chosen) if held_out(texts[i])]:
            compared = {f"{len(unseen)} captions kept from T5's training": float(right[unseen].mean()), **compared}
        title = f"linear probe on text: {name}"
        scores.append(Score.of(part, title, right, seed, without, compared=compared, target=target))
    return scores
