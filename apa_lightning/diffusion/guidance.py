"""Classifier-free guidance (Eq. 12) as a wrapper around a model."""

import torch
from torch import Tensor

from apa_lightning.diffusion.objectives import Model


def guide(unconditional: Tensor, conditional: Tensor, guidance_scale: float | Tensor) -> Tensor:
    """Eq. 12: eps(c_y-) + lambda * (eps(c_x, c_y) - eps(c_y-))."""
    return unconditional + guidance_scale * (conditional - unconditional)


def guided(both: Model, scale: Tensor) -> Model:
    """A model of B items from one that predicts both branches of Eq. 12 in one pass.

    Args:
        both: Predicts 2B items: the B unconditional ones first, then the B conditional ones.
        scale: Lambda per item (B,).
    """

    def model(latents: Tensor, time: Tensor) -> Tensor:
        unconditional, conditional = both(torch.cat([latents, latents]), time).chunk(2)
        return guide(unconditional, conditional, scale.view(-1, *[1] * (latents.ndim - 1)))

    return model
