"""Objectives of training: epsilon (Eq. 10 of the paper) and v."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from apa_lightning.diffusion.losses import inverse_snr, mean_squared_error
from apa_lightning.errors import InputError
from apa_lightning.utils.rng import randn

Model = Callable[[Tensor, Tensor], Tensor]
"""A denoiser as a function of noisy latents (B, C, T, ...) and times (B,) or (): what it predicts, of the latents' shape."""
LossWeighting = Literal["uniform", "inverse_snr"]


class DenoisingObjective:
    """Mean squared error of the prediction at a uniformly drawn timestep.

    Args:
        scheduler: A diffusers scheduler of any class, whose noise schedule is used; its ``prediction_type`` names the target,
            ``epsilon`` or ``v_prediction``.
        loss_weighting: ``inverse_snr`` weights epsilon losses by 1 / SNR; ``uniform`` is the paper's.
        max_loss_weight: Upper bound of a weight before the weights are scaled to a mean of 1.

    Raises:
        InputError: If the target or the weighting is unknown, if they do not belong together, or if the bound is below 1.
    """

    def __init__(self, scheduler: Any, loss_weighting: LossWeighting = "uniform", max_loss_weight: float = 250.0):
        if loss_weighting not in get_args(LossWeighting):
            raise InputError(
                f"loss_weighting: {loss_weighting!r} is unknown; choose one of {', '.join(get_args(LossWeighting))}."
            )
        if not max_loss_weight >= 1:
            raise InputError(f"max_loss_weight: {max_loss_weight}; give 1 (no weights) or more.")
        from diffusers import DDPMScheduler  # when weights are loaded: it takes seconds

        # Some classes add noise to unscaled latents, and not all know velocities.
        self.scheduler: Any = DDPMScheduler.from_config(scheduler.config)
        self.prediction_type = scheduler.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise InputError(
                f"backbone: it predicts {self.prediction_type!r}; a backbone that predicts epsilon or v_prediction is needed."
            )
        if self.prediction_type != "epsilon" and loss_weighting != "uniform":
            raise InputError(
                f"loss_weighting: {loss_weighting} belongs to epsilon prediction; this backbone predicts "
                f"{self.prediction_type}. Give uniform."
            )
        most = max_loss_weight if loss_weighting == "inverse_snr" else 1
        weights = inverse_snr(self.scheduler.alphas_cumprod, most)
        self.weights = weights / weights.mean()

    def __call__(self, model: Model, latents: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """The loss of each item (B,), and its weight in training (B,).

        Args:
            model: The backbone with its conditions.
            latents: Clean latents (B, C, T, ...).
            draw: Generator of every random number.
        """
        noise = randn(tuple(latents.shape), draw, latents)
        timesteps = torch.randint(self.scheduler.config.num_train_timesteps, (len(latents),), generator=draw)
        times = timesteps.to(latents.device)
        prediction = model(self.scheduler.add_noise(latents, noise, times), times)
        target = noise if self.prediction_type == "epsilon" else self.scheduler.get_velocity(latents, noise, times)
        losses = mean_squared_error(prediction, target)
        return losses, self.weights[timesteps].to(losses)
