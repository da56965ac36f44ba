"""MusicGen's delay pattern (arXiv 2306.05284, Sec. 2.2): codebook k is k steps late, so that a step draws one code of each.

The sequence starts with a step of padding; step s holds code s - 1 - k of codebook k. Three frames a, b, c in three codebooks::

    P a b c P P
    P P a b c P
    P P P a b c
"""

import torch
from torch import Tensor


def delayed(codes: Tensor, pad: int, lengths: Tensor | None = None) -> Tensor:
    """The sequence (B, K, T + K) of codes (B, K, T).

    Args:
        codes: The codes.
        pad: What stands where there is no code.
        lengths: Frames (B,) of each item; those after them become padding. None: all.
    """
    batch, codebooks, frames = codes.shape
    if lengths is not None:
        after = torch.arange(frames, device=codes.device) >= lengths.to(codes.device)[:, None]
        codes = codes.masked_fill(after[:, None], pad)
    sequence = codes.new_full((batch, codebooks, frames + codebooks), pad)
    for k in range(codebooks):
        sequence[:, k, k + 1 : k + 1 + frames] = codes[:, k]
    return sequence


def undelayed(sequence: Tensor, start: int = 0) -> Tensor:
    """The codes (B, K, T) of a sequence, or other values (B, K, T, ...) in their places.

    Args:
        sequence: Values of the steps (B, K, T + K - start, ...).
        start: The first of the steps.
    """
    codebooks = sequence.shape[1]
    frames = sequence.shape[2] + start - codebooks
    return torch.stack([sequence[:, k, k + 1 - start :][:, :frames] for k in range(codebooks)], dim=1)
