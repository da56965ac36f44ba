"""The sampling loop: codes of all codebooks step by step, each from a random number of its own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from apa_lightning.diffusion.guidance import guide
from apa_lightning.tokens.delay_pattern import delayed, undelayed
from apa_lightning.utils.rng import generator_for

Model = Callable[[Tensor], Tensor]
"""A model as a function of the steps (B, K, n) that it has not read yet: logits (B, K, n, V) of the steps after them."""
UNKNOWN = -1


def random_numbers(seeds: Sequence[int], codebooks: int, frames: int) -> Tensor:
    """A uniform number in [0, 1) for every code (B, K, T), from a generator per item.

    A code has the same number in every batch, window and length, so that an edit does not depend on its neighbours.
    """
    draws = [
        torch.rand(frames, codebooks, generator=generator_for(seed, "edit"), dtype=torch.float64) for seed in seeds
    ]
    return torch.stack(draws).transpose(1, 2)


def guided(branches: Model, scales: Tensor) -> Model:
    """A model of B items from one that predicts all branches of :func:`apa_lightning.diffusion.guidance.guide` in one pass.

    Args:
        branches: Predicts (N + 1) * B items, branch by branch.
        scales: N scales per item (N, B).
    """
    count = len(scales) + 1

    def model(steps: Tensor) -> Tensor:
        return guide(branches(steps.repeat(count, 1, 1)).chunk(count), scales[:, :, None, None, None].unbind())

    return model


def drawn(logits: Tensor, numbers: Tensor, temperature: float = 1.0, top_k: int = 0) -> Tensor:
    """A code (...) by inverting the distribution function of its logits (..., V).

    Args:
        logits: The logits.
        numbers: Uniform numbers in [0, 1) (...).
        temperature: Divides the logits; 0 takes the most likely code.
        top_k: Codes less likely than the first ``top_k`` are not drawn; 0: all may be drawn.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    logits = logits.double()
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    below = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)
    # The last code that may be drawn takes what rounding leaves of 1.
    number = numbers.to(below)[..., None] * below[..., -1:]
    return (below <= number).sum(dim=-1)


@torch.no_grad()
def continued(
    model: Model,
    codes: Tensor,
    lengths: Tensor,
    numbers: Tensor,
    pad: int,
    temperature: float = 1.0,
    top_k: int = 0,
    on_step: Callable[[int], Any] = lambda steps: None,
) -> Tensor:
    """Fill in the codes (B, K, T) that are :data:`UNKNOWN`, in the order of time; the others are kept.

    Args:
        model: The backbone with its conditions and guidance.
        codes: What is known.
        lengths: Frames (B,) of each item; nothing is drawn after them.
        numbers: From :func:`random_numbers` (B, K, T).
        pad: The code that means none.
        temperature: See :func:`drawn`.
        top_k: See :func:`drawn`.
        on_step: Called after each step with the number of steps that are done more.
    """
    sequence, numbers = delayed(codes, pad, lengths), delayed(numbers, pad).to(codes.device)
    read = 0
    for step in (sequence == UNKNOWN).any(dim=1).any(dim=0).nonzero().flatten().tolist():
        logits = model(sequence[:, :, read:step])[:, :, -1]
        new = drawn(logits, numbers[:, :, step], temperature, top_k)
        sequence[:, :, step] = torch.where(sequence[:, :, step] == UNKNOWN, new, sequence[:, :, step])
        on_step(step - read)
        read = step
    return undelayed(sequence)
