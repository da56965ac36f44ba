"""Recordings longer than a model's window: overlapping windows that are blended at every step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apa_lightning.diffusion.objectives import Model
from apa_lightning.utils.windows import blend_windows, window_starts, window_weights


@dataclass(frozen=True)
class Windows:
    """Windows of ``size`` latent frames that cover ``length`` and overlap by at least a quarter."""

    length: int
    size: int

    @property
    def starts(self) -> list[int]:
        """First frame of each window."""
        return window_starts(self.length, self.size, self.size // 4)

    def wrap(self, models: Sequence[Model]) -> Model:
        """A model of the whole length from one model per window, whose predictions are cross-faded."""
        starts, weights = self.starts, window_weights(self.length, self.size, self.starts)

        def model(latents: Tensor, time: Tensor) -> Tensor:
            parts = [
                one(latents[:, :, start : start + self.size], time) for one, start in zip(models, starts, strict=True)
            ]
            return blend_windows(torch.stack(parts), starts, weights, self.length)

        return model
