"""DirectAudioEdit (Ge et al., arXiv 2606.07356): from the recording to the edit without an inversion."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from apa_lightning.diffusion.objectives import Model
from apa_lightning.diffusion.schedulers import noised, timesteps_run
from apa_lightning.editing.knobs import is_scale
from apa_lightning.errors import InputError
from apa_lightning.evaluation.systems.latent_editor import LatentEditor


@dataclass(kw_only=True, eq=False)
class DirectAudioEdit(LatentEditor):
    """Moves the latents by the difference of one denoising step under the prompt and under the recording's text.

    Args:
        num_inference_steps: See the base. Published: 50.
        strength: See the base. Published: 1, the whole schedule.
        source_guidance_scale: See the base. Published: 3.
        target_guidance_scale: Guidance scale of the prompt at pure noise. Published: 8.
        last_target_guidance_scale: The same without noise; in between it grows along a cosine, slowly at first. Published: 12.
        with_source_prompt: See the base.
    """

    name = "direct_audio_edit"
    description = (
        "DirectAudioEdit: inversion-free, by the difference of a step under the prompt and under the source's text"
    )
    num_inference_steps: int = 50
    strength: float = 1.0
    target_guidance_scale: float = 8.0
    last_target_guidance_scale: float = 12.0

    def __post_init__(self) -> None:
        if not is_scale(last := self.last_target_guidance_scale):
            raise InputError(f"systems: {self.name}: last_target_guidance_scale: {last!r}; give a number of 0 or more.")
        super().__post_init__()

    def identity(self) -> dict[str, Any]:
        """The guidance scales."""
        return super().identity() | {"last_target_guidance_scale": self.last_target_guidance_scale}

    def target_guidance(self, progress: float) -> float:
        """From the first scale to the last along 1 - cos, see :meth:`LatentEditor.target_guidance`."""
        grown = 1 - math.cos(math.pi / 2 * progress)
        return self.target_guidance_scale + grown * (self.last_target_guidance_scale - self.target_guidance_scale)

    def edited(
        self, latents: Tensor, source: Model, target: Model, scheduler: Any, noise: Callable[[], Tensor]
    ) -> Tensor:
        """See :func:`contrast_predictions` and :meth:`LatentEditor.edited`."""
        return contrast_predictions(latents, source, target, scheduler, noise, self.strength)


def contrast_predictions(
    latents: Tensor, source: Model, target: Model, scheduler: Any, noise: Callable[[], Tensor], strength: float = 1.0
) -> Tensor:
    """Latents (B, C, T, ...) of an edit that starts as the recording itself.

    At every level the recording and the edit so far get the same fresh noise. Each makes one deterministic step, the recording under
    its text and the edit under the prompt, and what the edit's step changes more than the recording's is added to the edit. If
    both models are the same, the latents stay as they are.

    Args:
        latents: Those of the recording.
        source: The model under its text.
        target: The model under the prompt.
        scheduler: A ``DDIMScheduler``, set to its steps.
        noise: Draws standard normal noise of the latents' shape.
        strength: Share of the steps that is run, the last ones.
    """
    edited = latents
    for timestep in timesteps_run(scheduler, strength):
        shared = noise()
        recorded, moved = (noised(one, shared, scheduler, timestep) for one in (latents, edited))
        changes = [
            scheduler.step(model(noisy, timestep), timestep, noisy).prev_sample - noisy
            for model, noisy in ((target, moved), (source, recorded))
        ]
        edited = edited + (changes[0] - changes[1])
    return edited
