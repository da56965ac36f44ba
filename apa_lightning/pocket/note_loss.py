"""The loss of predicting the melody from pooled tokens: an auxiliary task of AudioMAE, so that pooling keeps the tune."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from apa_lightning.conditioning.pooling import POOLING_RATES, pool_tokens

CLASSES = 13
"""The twelve pitch classes, and silence."""


class NoteHead(nn.Module):
    """Predicts, from each token of a grid pooled by omega, which pitch class sounds in each of the omega columns below it.

    Args:
        width: Width D of a token.
    """

    def __init__(self, width: int):
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(width, rate * CLASSES) for rate in POOLING_RATES])

    def loss(self, grid: Tensor, target: Tensor) -> Tensor:
        """Cross-entropy of every token at every rate omega, mean over the rates.

        Args:
            grid: Unpooled tokens (B, T', F', D).
            target: Shares of the classes in each column, (B, T', 13), as :func:`sounding` gives them.
        """
        losses = []
        for rate, head in zip(POOLING_RATES, self.heads, strict=True):
            rows = grid.shape[1] // rate
            logits = head(pool_tokens(grid, rate)).unflatten(1, (rows, -1)).unflatten(-1, (rate, CLASSES))
            shares = target.unflatten(1, (rows, rate))[:, :, None].expand_as(logits)
            losses.append(F.cross_entropy(logits.flatten(0, 3), shares.flatten(0, 3)))
        return torch.stack(losses).mean()


def sounding(notes: Sequence[Sequence[float]], start: float, seconds: float, columns: int) -> Tensor:
    """Share of each column in which each pitch class sounds, (T', 13); the last class is silence.

    Args:
        notes: A melody as [start, end, MIDI key, velocity], in seconds of the clip.
        start: Second of the clip at which the window starts.
        seconds: Length of the window.
        columns: Number T' of columns in the window.
    """
    shares = torch.zeros(columns, CLASSES)
    edges = torch.linspace(start, start + seconds, columns + 1)
    for begin, end, key, _ in notes:
        inside = (edges[1:].clamp(max=end) - edges[:-1].clamp(min=begin)).clamp(min=0)
        shares[:, int(key) % 12] += inside * columns / seconds
    shares[:, -1] = (1 - shares.sum(dim=1)).clamp(min=0)
    return shares / shares.sum(dim=1, keepdim=True)
