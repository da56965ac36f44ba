"""The base of training-free editors: they change the latents of a recording by the frozen backbone and two texts alone."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from apa_lightning.backbones.diffusion import DiffusionBackbone
from apa_lightning.backbones.edit_batch import EditBatch
from apa_lightning.diffusion.guidance import guided
from apa_lightning.diffusion.objectives import Model
from apa_lightning.diffusion.windows import Windows
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.knobs import is_scale
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.editing.settings import EditSettings
from apa_lightning.editing.source import ModelInput, Recording
from apa_lightning.errors import InputError
from apa_lightning.evaluation.systems.system import System, SystemRequest
from apa_lightning.utils.rng import generator_for, randn


@dataclass(kw_only=True, eq=False)
class LatentEditor(System):
    """Edits with a noise-predicting (or v-predicting) backbone under the source's text and the prompt, without an adapter.

    Args:
        num_inference_steps: Steps of the whole schedule, where the evaluation's settings do not give a number.
        strength: Share of the schedule that is run, the last steps (above 0, at most 1).
        source_guidance_scale: Guidance scale of the source's text (0 or more).
        target_guidance_scale: Guidance scale of the prompt (0 or more).
        with_source_prompt: Use the task's ``source_text``; false: the source has an empty text, without guidance.

    Raises:
        InputError: If a value is out of its range.
    """

    sampling: ClassVar[str] = "diffusion"
    reads = ("prompt", "source_text", "num_inference_steps", "seed")
    parts = ("backbone",)
    num_inference_steps: int
    strength: float
    source_guidance_scale: float = 3.0
    target_guidance_scale: float
    with_source_prompt: bool = True

    def __post_init__(self) -> None:
        try:
            for knob in ("num_inference_steps", "strength"):
                EditSettings.check(knob, getattr(self, knob))
            for scale in ("source_guidance_scale", "target_guidance_scale"):
                if not is_scale(value := getattr(self, scale)):
                    raise InputError(f"{scale}: {value!r}; give a number of 0 or more.")
        except InputError as error:
            raise InputError(f"systems: {self.name}: {error}") from None
        changed = [f"{one.name}={value}" for one in fields(self) if (value := getattr(self, one.name)) != one.default]
        if changed:
            self.name = f"{self.name}({','.join(changed)})"

    def settings(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The prompt, the source's text and the seed of the task, and the method's own knobs."""
        settings = super().settings(values)
        return settings | {
            "source_text": settings["source_text"] if self.with_source_prompt else "",
            "num_inference_steps": settings["num_inference_steps"] or self.num_inference_steps,
            "strength": self.strength,
            "scheduler": "DDIMScheduler",
        }

    def identity(self) -> dict[str, Any]:
        """The guidance scales."""
        return {name: getattr(self, name) for name in ("source_guidance_scale", "target_guidance_scale")}

    @torch.no_grad()
    def edit(self, editor: AudioEditor, requests: Sequence[EditRequest]) -> list[EditResult]:
        """Requests of one number of latent frames together."""
        inputs = [ModelInput(Recording.load(request.audio), editor.backbone) for request in requests]
        results: dict[int, EditResult] = {}
        for frames in {one.frames for one in inputs}:
            chosen = [i for i, one in enumerate(inputs) if one.frames == frames]
            made = self._edit(editor, [requests[i] for i in chosen], [inputs[i] for i in chosen])
            results |= dict(zip(chosen, made, strict=True))
        return [results[i] for i in range(len(requests))]

    @abstractmethod
    def edited(
        self, latents: Tensor, source: Model, target: Model, scheduler: Any, noise: Callable[[], Tensor]
    ) -> Tensor:
        """The latents (B, C, T, ...) of the edits.

        Args:
            latents: Those of the recordings.
            source: The backbone under the sources' texts, with guidance.
            target: The same under the prompts.
            scheduler: A ``DDIMScheduler``, set to its steps.
            noise: Draws standard normal noise of the latents' shape, each item's from its own seed.
        """

    def target_guidance(self, progress: float) -> float:
        """The guidance scale of the prompt at a share of the noise schedule, from 0 (pure noise) to 1 (no noise)."""
        return self.target_guidance_scale

    def _edit(self, editor: AudioEditor, requests: list[EditRequest], inputs: list[ModelInput]) -> list[EditResult]:
        backbone = cast(DiffusionBackbone, editor.backbone)
        waveform = torch.stack([one.sound for one in inputs]).to(backbone.device)
        latents = backbone.encode_audio(waveform, lengths=[one.samples for one in inputs]).float()
        steps = backbone.scheduler.config.num_train_timesteps
        windows = Windows(inputs[0].frames, backbone.window_frames, requests[0].window_overlap)

        def under(texts: list[str], scale: Callable[[float], float]) -> Model:
            branches = _branches(backbone, inputs, ([""] * len(texts), texts) if any(texts) else (texts,), windows)
            if not any(texts):
                return branches

            def model(latents: Tensor, time: Tensor) -> Tensor:
                scales = torch.full((1, len(latents)), scale(1 - float(time) / steps)).to(latents)
                return guided(branches, scales)(latents, time)

            return model

        source = under([cast(SystemRequest, one).source_text for one in requests], lambda _: self.source_guidance_scale)
        target = under([one.prompt for one in requests], self.target_guidance)
        scheduler = backbone.make_scheduler("DDIMScheduler", requests[0].num_inference_steps)
        draws = [generator_for(one.seed, "edit") for one in requests]
        made = self.edited(
            latents,
            source,
            target,
            scheduler,
            lambda: torch.cat([randn((1, *latents.shape[1:]), draw, latents) for draw in draws]),
        )
        return [
            EditResult(request, *one.recording.finish(request, sound, backbone.sample_rate), backbone=backbone.name)
            for request, one, sound in zip(requests, inputs, backbone.decode(made).cpu(), strict=True)
        ]


def _branches(
    backbone: DiffusionBackbone, inputs: Sequence[ModelInput], texts: Sequence[Sequence[str]], windows: Windows
) -> Model:
    """The backbone under K lists of B texts, without an adapter: a model of K * B items."""
    prompts = [text for of_branch in texts for text in of_branch]
    return backbone.denoiser(
        EditBatch(
            settings=EditSettings(),
            prompts=prompts,
            negative_prompts=[""] * len(prompts),
            guidance=torch.empty(0, len(prompts)),
            seeds=[],
            waveform=torch.empty(0),
            lengths=[one.samples for one in inputs] * len(texts),
            frames=inputs[0].frames,
            kept=None,
            windows=windows,
            adapters=[],
            tokens=[[]] * len(windows.starts),
            nothing=[],
        )
    )
