"""Schedulers of diffusers by name, on a backbone's noise schedule, and the part of a schedule that is run."""

from typing import Any

import torch
from torch import Tensor

from apa_lightning.errors import InputError

#: Schedulers that give an exactly known model's mean and variance, at strength 1 and below (a test holds each to it). Of those
#: that diffusers calls compatible, EDMEulerScheduler and DPMSolverSDEScheduler are left out, see REASONS.
SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)


#: Why others are not usable, where the reason is not the noise schedule.
REASONS = {
    "EDMDPMSolverMultistepScheduler": "its timesteps are log(sigma) / 4, which no model here was trained on",
    "EDMEulerScheduler": "its timesteps are log(sigma) / 4, which no model here was trained on",
    "CosineDPMSolverMultistepScheduler": "it draws its noise by torchsde",
    "DPMSolverSDEScheduler": "it draws its noise from no seed that it is given",
}


def make_scheduler(
    trained: Any, name: str, num_inference_steps: int | None = None, device: torch.device | str = "cpu"
) -> Any:
    """A fresh diffusers scheduler of class ``name``, set to a number of steps if one is given.

    Args:
        trained: The backbone's own scheduler, whose noise schedule is used.
        name: Class name of the scheduler, see :func:`usable`.
        num_inference_steps: Denoising steps of the whole schedule.
        device: Where the timesteps are.

    Raises:
        InputError: If the name is unknown or not usable (the message lists the possible ones), or the scheduler cannot make so
            many steps.
    """
    scheduler = _scheduler(trained, name)
    if scheduler is None:
        names, why = ", ".join(usable(trained)), f" ({REASONS[name]})" if name in REASONS else ""
        raise InputError(f"scheduler: {name!r} is not usable with this backbone{why}; choose one of {names}.")
    if num_inference_steps is not None:
        try:
            scheduler.set_timesteps(num_inference_steps, device=device)
            first, last = float(scheduler.timesteps.max()), scheduler.config.num_train_timesteps - 1
            if first > last:  # diffusers' offset; it would be noticed in the first step
                raise ValueError(f"they would start at timestep {first:g}, the last is {last}")
        except (ValueError, IndexError) as error:
            raise InputError(
                f"num_inference_steps: {name} cannot make {num_inference_steps} steps ({error})."
            ) from None
    return scheduler


def usable(trained: Any) -> list[str]:
    """Names of the schedulers that sample on the noise schedule of ``trained``: its own class, and those of SCHEDULERS."""
    return sorted(name for name in {type(trained).__name__, *SCHEDULERS} if _scheduler(trained, name) is not None)


def _scheduler(trained: Any, name: str) -> Any | None:
    """A scheduler with the configuration of ``trained``; None if its class is not offered or its noise schedule differs."""
    kinds: dict[str, Any] = {one.__name__: one for one in trained.compatibles if one.__name__ in SCHEDULERS}
    kind = (kinds | {type(trained).__name__: type(trained)}).get(name)
    if kind is None:
        return None
    # PNDM's Runge-Kutta steps can only start at the top of the schedule. Latents are not confined to [-1, 1] as pictures are.
    options = {"skip_prk_steps": True, "clip_sample": trained.config.get("clip_sample", False)}
    scheduler = kind.from_config(trained.config, **options)
    # Some classes ignore what they do not know, such as rescale_betas_zero_snr.
    same = kind is type(trained) or torch.allclose(scheduler.alphas_cumprod, trained.alphas_cumprod, atol=1e-6)
    return scheduler if same else None


def steps_run(steps: int, strength: float) -> int:
    """How many of ``steps`` denoising steps are run at a ``strength``: the whole ones, as in diffusers, and at least one."""
    return max(1, int(steps * strength))


def timesteps_run(scheduler: Any, strength: float = 1.0) -> Tensor:
    """The timesteps that the model is called at, with the scheduler set to start at the first of them.

    Args:
        scheduler: A diffusers scheduler that is set to its steps.
        strength: Share of the steps that is run, the last ones.
    """
    steps = scheduler.num_inference_steps
    skipped = steps - steps_run(steps, strength)
    if type(scheduler).__name__ == "PNDMScheduler":  # its first two calls are one step, wherever it starts
        timesteps = scheduler.timesteps.unique_consecutive()[skipped:]
        return torch.cat([timesteps[:2], timesteps[1:]])
    if type(scheduler).__name__ == "LMSDiscreteScheduler":  # takes a step's index for the number of steps made
        scheduler.timesteps, scheduler.sigmas = scheduler.timesteps[skipped:], scheduler.sigmas[skipped:]
        return scheduler.timesteps
    first = skipped * scheduler.order  # a step of higher order is several calls
    if skipped and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(first)
    return scheduler.timesteps[first:]


def noised(latents: Tensor, noise: Tensor, scheduler: Any, timestep: Tensor) -> Tensor:
    """Latents (B, C, T, ...) under as much noise as the model's next call expects, which is at ``timestep`` ()."""
    if type(scheduler).__name__ == "KDPM2DiscreteScheduler" and not scheduler.state_in_first_order:
        # Within a step, its own add_noise takes the level of the step's end.
        return latents + noise * scheduler.sigmas_interpol[scheduler.step_index].to(latents)
    return scheduler.add_noise(latents, noise, timestep.expand(len(latents)))
