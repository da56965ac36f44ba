"""The loss of predicting a clip's AudioSet labels: an auxiliary task of CLAP and AudioMAE."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from apa_lightning.pocket.text.prompts import GENRES, INSTRUMENTS

LABELS = (*INSTRUMENTS.values(), *GENRES.values())
"""The labels that a label head predicts."""


def label_loss(logits: Tensor, labels: Sequence[Sequence[str]]) -> Tensor:
    """Binary cross-entropy of the logits of :data:`LABELS`; clips that have none of them do not count.

    Args:
        logits: (B, L), or (B, L + 1), whose last is whether a clip has more than one label.
        labels: Labels of each clip.
    """
    target = logits.new_tensor([[float(name in names) for name in LABELS] for names in labels])
    several = (target.sum(dim=1, keepdim=True) > 1).to(target)
    target = torch.cat([target, several], dim=1)[:, : logits.shape[1]]
    known = target[:, : len(LABELS)].amax(dim=1, keepdim=True)
    errors = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (errors * known).mean() / known.mean().clamp(min=1e-6)
