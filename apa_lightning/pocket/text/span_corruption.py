"""T5's span corruption."""

from collections.abc import Sequence

import torch


def span_corruption(
    tokens: Sequence[int], sentinels: Sequence[int], noise_density: float, mean_span: float, generator: torch.Generator
) -> tuple[list[int], list[int]]:
    """Replace spans of a text by sentinels (T5, Sec. 3.1.4).

    Spans have random lengths and places; they do not touch, and may be first or last in the text.

    Args:
        tokens: N >= 1 ids without the end of the sequence.
        sentinels: Ids, one per span and one that ends the target.
        noise_density: Share of tokens to replace, at least one token.
        mean_span: Mean length of a span.
        generator: Generator on the CPU.

    Returns:
        The text with sentinels, and the spans after their sentinels.
    """
    missing = min(max(1, round(len(tokens) * noise_density)), max(1, len(tokens) - 1))
    kept = len(tokens) - missing
    spans = min(max(1, round(missing / mean_span)), missing, kept + 1, len(sentinels) - 1)
    gone = _parts(missing, spans, generator)
    stay = _parts(kept + 2, spans + 1, generator)  # the outer two may be empty
    stay[0], stay[-1] = stay[0] - 1, stay[-1] - 1
    inputs: list[int] = []
    filled: list[int] = []
    at = 0
    for sentinel, before, span in zip(sentinels, stay, gone, strict=False):
        inputs += [*tokens[at : at + before], sentinel]
        filled += [sentinel, *tokens[at + before : at + before + span]]
        at += before + span
    return inputs + list(tokens[at:]), [*filled, sentinels[spans]]


def _parts(total: int, count: int, generator: torch.Generator) -> list[int]:
    """``count`` lengths of at least 1 that sum to ``total``, all ways equally likely."""
    cuts = (torch.randperm(total - 1, generator=generator)[: count - 1] + 1).sort().values.tolist()
    return [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)]
