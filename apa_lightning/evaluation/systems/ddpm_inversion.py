"""DDPM inversion: ZETA (Manor and Michaeli, arXiv 2402.10009) with the edit-friendly noise of Huberman-Spiegelglas et al. (2304.06140)."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from apa_lightning.diffusion.objectives import Model
from apa_lightning.diffusion.schedulers import noised, timesteps_run
from apa_lightning.evaluation.systems.latent_editor import LatentEditor


@dataclass(kw_only=True, eq=False)
class DDPMInversion(LatentEditor):
    """The recording's own noise maps, extracted under its text, generate again under the prompt.

    Args:
        num_inference_steps: See the base. Published: 200.
        strength: T_start of T. Published: 100 of 200.
        source_guidance_scale: See the base. Published: 3.
        target_guidance_scale: See the base. Published: 12.
        with_source_prompt: See the base.
    """

    name = "ddpm_inversion"
    description = "DDPM inversion (ZETA): the recording's noise maps, generated again under the prompt"
    num_inference_steps: int = 200
    strength: float = 0.5
    target_guidance_scale: float = 12.0

    def edited(
        self, latents: Tensor, source: Model, target: Model, scheduler: Any, noise: Callable[[], Tensor]
    ) -> Tensor:
        """Both chains in one pass, so that no noise map has to be kept; see :meth:`LatentEditor.edited`."""
        return invert_and_generate(latents, source, target, scheduler, noise, self.strength)


def invert_and_generate(
    latents: Tensor, source: Model, target: Model, scheduler: Any, noise: Callable[[], Tensor], strength: float = 1.0
) -> Tensor:
    r"""Latents (B, C, T, ...) of an edit by DDPM inversion.

    x_t of the recording is drawn by itself at every level, so that consecutive ones are less alike than on a path of the process.
    What the step from x_t to x_{t-1} adds to its mean under the source's text is the noise map, sigma_t z_t. The edit takes the
    same steps from x_{T_start}, with its own mean under the prompt and these maps. The last map is used too: if both models are the
    same, the latents come back. Where sigma of the last step is 0, its map is what the mean lacks of the latents.

    Args:
        latents: Those of the recording, x_0.
        source: The model under its text.
        target: The model under the prompt.
        scheduler: A ``DDIMScheduler``, set to its steps; with eta 1 these are those of DDPM.
        noise: Draws standard normal noise of the latents' shape.
        strength: Share of the steps that is run, T_start / T.
    """
    timesteps = timesteps_run(scheduler, strength)
    recorded = edited = noised(latents, noise(), scheduler, timesteps[0])
    for timestep, following in zip_longest(timesteps, timesteps[1:]):
        drawn = latents if following is None else noised(latents, noise(), scheduler, following)
        mean = _mean(scheduler, source, recorded, timestep)
        noise_map = drawn - mean
        recorded = mean + noise_map  # as the edit computes it, so that rounding does not add up
        edited = _mean(scheduler, target, edited, timestep) + noise_map
    return edited


def _mean(scheduler: Any, model: Model, latents: Tensor, timestep: Tensor) -> Tensor:
    """The mean of DDPM's step from ``latents``."""
    none = torch.zeros_like(latents)
    return scheduler.step(model(latents, timestep), timestep, latents, eta=1.0, variance_noise=none).prev_sample
