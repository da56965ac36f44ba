"""The loss of a model that draws codes."""

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, codes: Tensor) -> Tensor:
    """Mean over frames and codebooks of the cross-entropy: logits (B, K, T, V) and codes (B, K, T) -> one value per item (B,)."""
    losses = F.cross_entropy(logits.float().permute(0, 3, 1, 2), codes, reduction="none")
    return losses.mean(dim=(1, 2))
