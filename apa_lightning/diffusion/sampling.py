"""Guided denoising (Eq. 12) over windows: from noise to the latents of an edit."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.backbones.text_streams import TextStreams
from apa_lightning.diffusion.losses import guide
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import first_line
from apa_lightning.utils.windows import blend_windows, window_starts, window_weights


@dataclass(frozen=True)
class Windows:
    """How a recording of ``length`` latent frames is covered by windows of ``size`` that overlap by a quarter at least."""

    length: int
    size: int

    @property
    def starts(self) -> list[int]:
        return window_starts(self.length, self.size, self.size // 4)

    def blend(self, parts: list[Tensor]) -> Tensor:
        """Cross-fade one (B, C, size, F) per window into (B, C, length, F)."""
        return blend_windows(
            torch.stack(parts), self.starts, window_weights(self.length, self.size, self.starts), self.length
        )


@dataclass(frozen=True)
class Guidance:
    """The two branches of Eq. 12 for B items.

    Attributes:
        text: streams of the prompts c_y.
        negative: streams of the negative prompts c_y-; ``None`` means no second branch.
        loa: audio prompt per window (B, N, D); empty for text only.
        unconditional_loa: audio prompt of the second branch (B, N, D).
        scale: lambda per item (B, 1, 1, 1).
        adapters: number of installed adapters, which all hear the same audio prompt.
    """

    text: TextStreams
    negative: TextStreams | None
    loa: list[Tensor]
    unconditional_loa: Tensor
    scale: Tensor
    adapters: int = 1

    def predict(self, backbone: AudioLDM2Backbone, latents: Tensor, timestep: Tensor, window: int) -> Tensor:
        """epsilon~ of Eq. 12 for one window (B, C, size, F); both branches in one pass."""
        loa = self.loa[window]
        if self.negative is None:
            return backbone.predict_noise(latents, timestep, self.text, [loa] * self.adapters)
        both = backbone.predict_noise(
            torch.cat([latents, latents]),
            timestep,
            TextStreams.cat(self.negative, self.text),
            [torch.cat([self.unconditional_loa.expand_as(loa), loa])] * self.adapters,
        )
        unconditional, conditional = both.chunk(2)
        return guide(unconditional, conditional, self.scale)


def make_scheduler(backbone: AudioLDM2Backbone, name: str, num_inference_steps: int | None = None) -> Any:
    """A fresh diffusers scheduler of class ``name`` with the backbone's noise schedule, set to a number of steps if given.

    Raises:
        InputError: unknown or incompatible; the message lists the possible ones. Or it cannot make so many steps.
    """
    names = sorted({type(backbone.scheduler).__name__} | {cls.__name__ for cls in backbone.scheduler.compatibles})
    if name not in names:
        raise InputError(f"scheduler: {name!r} is not usable with this backbone; choose one of {', '.join(names)}.")
    try:
        scheduler = getattr(diffusers, name).from_config(backbone.scheduler.config)
    except ImportError as error:
        raise InputError(f"scheduler: {name} needs a package that is not installed: {first_line(error)}") from error
    if num_inference_steps is not None:
        try:
            scheduler.set_timesteps(num_inference_steps, device=backbone.device)
            first, last = float(scheduler.timesteps.max()), scheduler.config.num_train_timesteps - 1
            if first > last:  # diffusers' offset; it would be noticed in the first step
                raise ValueError(f"they would begin at timestep {first:g}, the last is {last}")
        except (ValueError, IndexError) as error:
            raise InputError(
                f"num_inference_steps: {name} cannot make {num_inference_steps} steps ({error})."
            ) from None
    return scheduler


def steps_run(steps: int, strength: float) -> int:
    """How many of ``steps`` denoising steps are run at a ``strength``; one at least."""
    return max(1, round(steps * strength))


@torch.no_grad()
def denoise(
    backbone: AudioLDM2Backbone,
    guidance: Guidance,
    windows: Windows,
    noise: Tensor,
    scheduler: Any,
    generators: list[torch.Generator],
    keep: tuple[Tensor, Tensor] | None = None,
    source: Tensor | None = None,
    strength: float = 1.0,
    on_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Latents (B, C, T, F) from ``noise`` of the same shape.

    The noise predictions of overlapping windows are blended at every step, so that neighbours agree on what they share.

    Args:
        scheduler: from :func:`make_scheduler`, set to its steps.
        generators: one per item, for schedulers that add noise.
        keep: (latents (B, C, T, F), mask (B, 1, T, 1)): where the mask is 1 the given latents are kept, noised to each
            step's level, so that the rest fits its surroundings.
        source: latents (B, C, T, F) to begin with, under as much noise as the first step that is run expects (SDEdit,
            arXiv 2108.01073).
        strength: share of the steps that is run from ``source``, the last ones.
    """
    extra = {"generator": generators} if "generator" in inspect.signature(scheduler.step).parameters else {}
    timesteps = scheduler.timesteps
    if source is None:
        latents = noise * scheduler.init_noise_sigma
    else:
        begin = len(timesteps) - steps_run(len(timesteps), strength)
        begin -= begin % scheduler.order  # a step of higher order is several evaluations
        timesteps = timesteps[begin:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        latents = scheduler.add_noise(source, noise, timesteps[:1].expand(len(source)))
    for i, timestep in enumerate(timesteps):
        scaled = scheduler.scale_model_input(latents, timestep)
        parts = [
            guidance.predict(backbone, scaled[:, :, start : start + windows.size], timestep, window)
            for window, start in enumerate(windows.starts)
        ]
        latents = scheduler.step(windows.blend(parts), timestep, latents, **extra, return_dict=False)[0]
        if keep is not None:
            known, mask = keep
            if i + 1 < len(timesteps):
                known = scheduler.add_noise(known, noise, timesteps[i + 1].expand(len(known)))
            latents = torch.where(mask.bool(), known, latents)
        on_step()
    return latents
