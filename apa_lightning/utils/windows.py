"""Overlapping windows over a long recording, and their cross-fade."""

from itertools import pairwise

import torch
from torch import Tensor


def window_starts(length: int, window: int, overlap: int) -> list[int]:
    """First frames of windows of ``window`` frames that cover ``length``, overlapping by at least ``overlap``.

    One window at 0 when ``length <= window``; otherwise they are spread evenly and the last ends at ``length``.
    """
    if length <= window:
        return [0]
    count = -(-(length - overlap) // (window - overlap))
    return [round(i * (length - window) / (count - 1)) for i in range(count)]


def window_weights(length: int, window: int, starts: list[int]) -> Tensor:
    """Cross-fade weights (len(starts), window) that sum to one at every frame of ``length``.

    Each ramp spans the window's actual overlap with its neighbour, so that the edges of windows are inaudible.
    """
    position = torch.arange(window, dtype=torch.float32)
    weights = torch.ones(len(starts), window)
    for i, (left, right) in enumerate(pairwise(starts)):
        ramp = left + window - right
        if ramp <= 0:
            continue
        rise = ((position + 0.5) / ramp).clamp(max=1.0)
        weights[i + 1] = torch.minimum(weights[i + 1], rise)
        weights[i] = torch.minimum(weights[i], rise.flip(0))
    total = torch.zeros(max(length, window))
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + window] += weight
    return torch.stack([w / total[s : s + window] for s, w in zip(starts, weights, strict=True)])


def blend_windows(parts: Tensor, starts: list[int], weights: Tensor, length: int) -> Tensor:
    """Weighted overlap-add along time.

    Args:
        parts: One (B, C, window, ...) per window, stacked: (W, B, C, window, ...).
        starts: From :func:`window_starts`.
        weights: From :func:`window_weights`.
        length: Total frames.

    Returns:
        (B, C, length, ...), 0 where there is no window; with a window of exactly ``length`` frames, ``parts[0]`` itself.
    """
    if length <= parts.shape[3]:
        return parts[0][:, :, :length]
    out = parts.new_zeros(*parts.shape[1:3], length, *parts.shape[4:])
    for part, start, weight in zip(parts, starts, weights.to(parts), strict=True):
        out[:, :, start : start + part.shape[2]] += part * weight.view(-1, *[1] * (part.ndim - 3))
    return out
