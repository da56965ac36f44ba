"""Schedulers of diffusers by name, on a backbone's noise schedule."""

from typing import Any

import diffusers
import torch

from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import first_line


def make_scheduler(
    trained: Any, name: str, num_inference_steps: int | None = None, device: torch.device | str = "cpu"
) -> Any:
    """A fresh diffusers scheduler of class ``name``, set to a number of steps if one is given.

    Args:
        trained: The backbone's own scheduler, whose noise schedule is used.
        name: Class name of the scheduler or of one that is compatible with it.
        num_inference_steps: Denoising steps of the whole schedule.
        device: Where the timesteps are.

    Raises:
        InputError: If the name is unknown or incompatible (the message lists the possible ones), or the scheduler cannot
            make so many steps.
    """
    names = sorted({type(trained).__name__} | {cls.__name__ for cls in trained.compatibles})
    if name not in names:
        raise InputError(f"scheduler: {name!r} is not usable with this backbone; choose one of {', '.join(names)}.")
    try:
        scheduler = getattr(diffusers, name).from_config(trained.config)
    except ImportError as error:
        raise InputError(f"scheduler: {name} needs a package that is not installed: {first_line(error)}") from error
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


def steps_run(steps: int, strength: float) -> int:
    """How many of ``steps`` denoising steps are run at a ``strength``; at least one."""
    return max(1, round(steps * strength))
