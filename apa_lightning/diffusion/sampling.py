"""The denoising loop: from noise to the latents of an edit."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from apa_lightning.diffusion.objectives import Model
from apa_lightning.diffusion.schedulers import noised, timesteps_run


def with_progress(model: Model, timesteps: Tensor, on_call: Callable[[float], Any]) -> Model:
    """The same model, which tells before each call how far the sampling is.

    Args:
        model: The model.
        timesteps: Those that are run, see :func:`apa_lightning.diffusion.schedulers.timesteps_run`.
        on_call: Gets 0 at the first timestep, 1 at the last, and shares of the way between them: calls at the same timestep, as
            in steps of higher order, get the same.
    """
    first, last = float(timesteps[0]), float(timesteps[-1])

    def telling(latents: Tensor, time: Tensor) -> Tensor:
        on_call((first - float(time)) / (first - last) if first > last else 0.0)
        return model(latents, time)

    return telling


@torch.no_grad()
def denoise(
    model: Model,
    noise: Tensor,
    scheduler: Any,
    generators: list[torch.Generator],
    keep: tuple[Tensor, Tensor] | None = None,
    source: Tensor | None = None,
    strength: float = 1.0,
    on_step: Callable[[], Any] = lambda: None,
) -> Tensor:
    """Latents (B, C, T, ...) from ``noise`` of the same shape.

    Args:
        model: The backbone with its conditions; guidance and windows are wrappers around it.
        noise: Standard normal.
        scheduler: A diffusers scheduler, set to its steps.
        generators: One per item, for schedulers that add noise.
        keep: Latents (B, C, T, ...) and a mask (B, 1, T, ...): where the mask is 1 the latents are kept, noised to each
            step's level, so that the rest fits its surroundings.
        source: Latents to start from, under as much noise as the first step that is run expects (SDEdit, arXiv 2108.01073).
        strength: Share of the steps that is run from ``source``, the last ones.
        on_step: Called after every step.
    """
    extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    timesteps = timesteps_run(scheduler, strength)
    if source is None:
        latents = noise * scheduler.init_noise_sigma
    else:
        latents = noised(source, noise, scheduler, timesteps[0])
    for i, timestep in enumerate(timesteps):
        prediction = model(scheduler.scale_model_input(latents, timestep), timestep)
        latents = scheduler.step(prediction, timestep, latents, **extra, return_dict=False)[0]
        if keep is not None:
            known, mask = keep
            if i + 1 < len(timesteps):
                known = noised(known, noise, scheduler, timesteps[i + 1])
            latents = torch.where(mask.bool(), known, latents)
        on_step()
    return latents
