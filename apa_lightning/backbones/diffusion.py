"""The base of backbones that denoise latents: the objective of training and the sampler of edits."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from apa_lightning.backbones.base import Backbone, Objective
from apa_lightning.backbones.edit_batch import EditBatch, Sampling
from apa_lightning.diffusion.guidance import guided, within
from apa_lightning.diffusion.objectives import DenoisingObjective, LossWeighting, Model
from apa_lightning.diffusion.sampling import denoise, with_progress
from apa_lightning.diffusion.schedulers import make_scheduler, timesteps_run
from apa_lightning.utils.rng import generator_for, randn

#: Windows of one edit, or of several, that are denoised in one batch: more bring little.
WINDOWS = 4


class DiffusionBackbone(Backbone):
    """A backbone that denoises latents (B, C, T, ...): time is the third axis, whatever follows belongs to the backbone.

    Attributes:
        scheduler: A diffusers scheduler with the noise schedule that the model was trained on.
    """

    sampling: ClassVar[Sampling] = "diffusion"
    encoding_names: ClassVar[tuple[str, ...]] = ("mean", "std")
    scheduler: Any

    # --- to be written for each backbone ------------------------------------------------------------------------------

    @abstractmethod
    def latent_shape(self, frames: int | None = None) -> tuple[int, ...]:
        """(C, T, ...) of the latents of ``frames`` latent frames, by default of one window."""

    @abstractmethod
    def encode_moments(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, C, T, ...) of the latents of waveforms, see :meth:`encode`."""

    @abstractmethod
    def predict(self, latents: Tensor, times: Tensor, text: Any, audio_tokens: Sequence[Tensor] = ()) -> Tensor:
        """The model's output for one window: epsilon or v, as the scheduler's ``prediction_type`` says.

        Args:
            latents: Noisy latents (B, C, T, ...).
            times: Timesteps (B,), or one for all ().
            text: From :meth:`encode_text`, for B prompts.
            audio_tokens: Pooled audio prompt (B, N, D), one tensor per installed adapter, as its :meth:`Adapter.project` gave
                it; empty means text only.
        """

    # --- default that a backbone may replace --------------------------------------------------------------------------

    def predictor(self, text: Any, audio_tokens: Sequence[Tensor] = ()) -> Model:
        """:meth:`predict` for calls under the same conditions, such as those of one edit; a backbone may prepare them once.

        Args:
            text: See :meth:`predict`.
            audio_tokens: See :meth:`predict`. The adapters must stay installed from the first call to the last.
        """
        return lambda latents, time: self.predict(latents, time, text, audio_tokens)

    # --- training -----------------------------------------------------------------------------------------------------

    def encode(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        """``mean`` and ``std`` of the latents, see :meth:`encode_moments`."""
        return dict(zip(self.encoding_names, self.encode_moments(waveform, lengths), strict=True))

    def sampled(self, encoding: Mapping[str, Tensor], draw: torch.Generator | None = None) -> Tensor:
        """Latents: a sample of their posterior, or without ``draw`` its mean."""
        mean, std = encoding["mean"], encoding["std"]
        return mean if draw is None else (mean + std * randn(tuple(mean.shape), draw, mean.float())).float()

    def objective(self, loss_weighting: LossWeighting = "uniform", max_loss_weight: float = 250.0) -> Objective:
        """Eq. 10: mean squared error of the prediction, see :class:`DenoisingObjective`."""
        return partial(self._losses, DenoisingObjective(self.scheduler, loss_weighting, max_loss_weight))

    def _losses(
        self,
        objective: DenoisingObjective,
        encoded: Tensor,
        text: Any,
        audio_tokens: Sequence[Tensor],
        draw: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        model = self.predictor(text, audio_tokens)
        return objective(lambda noisy, times: model(noisy.to(self.dtype), times), encoded, draw)

    # --- editing ------------------------------------------------------------------------------------------------------

    def make_scheduler(self, name: str, num_inference_steps: int | None = None) -> Any:
        """A fresh scheduler of class ``name``, see :func:`apa_lightning.diffusion.schedulers.make_scheduler`."""
        return make_scheduler(self.scheduler, name, num_inference_steps, self.device)

    def check_settings(self, settings: Any) -> None:
        """Raise :class:`InputError` unless the scheduler suits the backbone and can make so many steps."""
        self.make_scheduler(settings.scheduler, settings.num_inference_steps)

    def count_steps(self, settings: Any, frames: int) -> int:
        """Calls of the model, which are more than there are steps if these are of higher order."""
        return len(self._timesteps(settings))

    def _timesteps(self, settings: Any) -> Tensor:
        scheduler = self.make_scheduler(settings.scheduler, settings.num_inference_steps)
        return timesteps_run(scheduler, settings.strength)

    def denoiser(self, batch: EditBatch) -> Model:
        """The model of the whole length, over overlapping windows, with the conditions and the guidance of a batch."""
        together = max(1, WINDOWS // len(batch.prompts))
        models = [self._model(batch, first, together) for first in range(0, len(batch.windows.starts), together)]
        return batch.windows.wrap(models, together)

    def sampler(self, batch: EditBatch) -> Callable[[], Tensor]:
        """The denoising loop (Sec. 3.4, Eq. 12) over overlapping windows."""
        settings, recorded, keep = batch.settings, None, None
        model = self.denoiser(batch)
        if batch.kept is not None or settings.strength < 1:
            recorded = self.encode_audio(batch.waveform, lengths=batch.lengths).to(self.dtype)
        if batch.kept is not None:
            mask = batch.kept.reshape(len(batch.kept), 1, -1, *[1] * (len(self.latent_shape()) - 2))
            keep = cast(Tensor, recorded), mask.to(self.device)
        if (scale_at := batch.ap_scale_at) is not None:
            model = with_progress(model, self._timesteps(settings), lambda share: self.set_scale(scale_at(share)))

        def run() -> Tensor:
            generators = [generator_for(seed, "edit") for seed in batch.seeds]
            shape = (1, *self.latent_shape(batch.frames))
            like = torch.empty(0, device=self.device, dtype=self.dtype)
            noise = torch.cat([randn(shape, generator, like) for generator in generators])
            scheduler = self.make_scheduler(settings.scheduler, settings.num_inference_steps)
            source = recorded if settings.strength < 1 else None
            return denoise(model, noise, scheduler, generators, keep, source, settings.strength, batch.on_step)

        return run

    def _model(self, batch: EditBatch, first: int, together: int) -> Model:
        """The model of a run of windows with the conditions and the guidance of a batch."""

        def conditioned(is_guided: bool) -> Model:
            text, audio = batch.conditions(self, first, together, is_guided)
            return self.predictor(text, audio)

        interval = batch.settings.guidance_interval
        if not len(batch.guidance):
            return conditioned(False)
        windows = len(batch.tokens[first : first + together])
        model = guided(conditioned(True), batch.guidance.repeat(1, windows))
        steps = self.scheduler.config.num_train_timesteps
        return model if interval is None else within(interval, model, conditioned(False), steps)
