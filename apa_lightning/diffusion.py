"""The mathematics of training and guided sampling, as pure functions (AP-Adapter, arXiv 2407.16564)."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F


def epsilon_loss(prediction: Tensor, noise: Tensor) -> Tensor:
    """Eq. 10: mean squared error between predicted and true noise, both (B, C, T, F) -> one value per item (B,)."""
    return F.mse_loss(prediction.float(), noise.float(), reduction="none").mean(dim=(1, 2, 3))


def loss_weights(alphas_cumprod: Tensor, most: float) -> Tensor:
    """1 / SNR of each timestep, no less than 1 and no more than ``most``, for :func:`epsilon_loss`.

    Where noise hides nearly everything, epsilon is nearly the input and its error tiny, but what is played is decided there:
    1 / SNR weighs the error of the music instead (Salimans & Ho, arXiv 2202.00512, Sec. 4). ``most`` = 1: no weights.

    Args:
        alphas_cumprod: of the schedule (T,).
    """
    return ((1 - alphas_cumprod) / alphas_cumprod).clamp(1, most)


def guide(unconditional: Tensor, conditional: Tensor, guidance_scale: float | Tensor) -> Tensor:
    """Eq. 12, classifier-free guidance: eps(c_y-) + lambda * (eps(c_x, c_y) - eps(c_y-))."""
    return unconditional + guidance_scale * (conditional - unconditional)


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

    Each ramp spans the window's actual overlap with its neighbour, so that no window's edge is heard.
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
        parts: (W, B, C, window, F), one per window.
        starts, weights: from :func:`window_starts` and :func:`window_weights`.
        length: total frames.

    Returns:
        (B, C, length, F); with one window of exactly ``length`` frames, ``parts[0]`` itself.
    """
    if len(starts) == 1:
        return parts[0][..., :length, :]
    out = parts.new_zeros(*parts.shape[1:3], length, parts.shape[4])
    for part, start, weight in zip(parts, starts, weights.to(parts), strict=True):
        out[..., start : start + part.shape[2], :] += part * weight[:, None]
    return out
