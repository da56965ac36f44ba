"""The variance-preserving cosine schedule of continuous time: ``z_t = cos(t pi/2) z_0 + sin(t pi/2) eps``, t from 0 to 1.

Stable Audio Open was trained on it: it is fed t itself, and predicts v. As a discrete schedule it serves every scheduler of this
program, whose timesteps are whole numbers.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from apa_lightning.diffusion.schedulers import REASONS
from apa_lightning.errors import InputError

STEPS = 1000


def vp_cosine_scheduler(config: Mapping[str, Any]) -> Any:
    """A ``DDIMScheduler`` at :data:`STEPS` times, spread evenly up to the one whose noise is ``sigma_max`` times the signal.

    Args:
        config: Content of the folder's ``scheduler_config.json``.

    Raises:
        InputError: If it is not the configuration of the ``CosineDPMSolverMultistepScheduler`` for v prediction.
    """
    from diffusers import DDIMScheduler

    name = config.get("_class_name")
    if name != "CosineDPMSolverMultistepScheduler":
        why = REASONS.get(str(name), "its noise schedule is not the one that the model was trained on")
        raise InputError(
            f"backbone: its scheduler is {name}: {why}. Give the folder the scheduler_config.json of Stable Audio Open, a "
            "CosineDPMSolverMultistepScheduler."
        )
    if (target := config.get("prediction_type", "v_prediction")) != "v_prediction" or config.get("sigma_data", 1) != 1:
        raise InputError(
            f"backbone: its scheduler has prediction_type {target!r} and sigma_data {config.get('sigma_data', 1)}; "
            "v_prediction and 1 are needed."
        )
    last = math.atan(config.get("sigma_max", 500.0))
    signal = torch.cos(torch.arange(STEPS + 1, dtype=torch.float64) / STEPS * last) ** 2
    return DDIMScheduler(
        num_train_timesteps=STEPS,
        trained_betas=(1 - signal[1:] / signal[:-1]).tolist(),
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def times_of(alphas_cumprod: Tensor) -> Tensor:
    """The time t of each timestep of a schedule (T,), in double precision: that of the noise which the schedule really adds."""
    signal = alphas_cumprod.double()
    return torch.atan2((1 - signal).sqrt(), signal.sqrt()) * 2 / math.pi


def times_at(timesteps: Tensor, times: Tensor) -> Tensor:
    """The times (B,) at timesteps, which lie between two where a scheduler's steps are of higher order.

    Args:
        timesteps: Of a scheduler: (B,), or one for all ().
        times: See :func:`times_of`.
    """
    place = timesteps.reshape(-1).to(times)
    before, after = place.floor().long(), place.ceil().long()
    return torch.lerp(times[before], times[after], place - before)
