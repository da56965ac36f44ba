"""The U-Net of the pocket backbone: noise prediction with two text streams, one of which hears true audio for long.

AudioLDM2's U-Net learned from true AudioMAE features in its language-of-audio stream before it saw generated ones
(arXiv 2308.05734, Sec. 3.3): that is why an adapter whose keys and values begin as a copy of that stream's can hear.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AudioLDM2UNet2DConditionModel
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import MeanMetric

from apa_lightning.backbones.architectures import POCKET, new_scheduler
from apa_lightning.backbones.text_streams import TextStreams
from apa_lightning.conditioning.dropout import PoolingRates, audio_tokens
from apa_lightning.conditioning.pooling import POOLING_RATES, check_pooling_rate
from apa_lightning.diffusion.losses import inverse_snr
from apa_lightning.errors import InputError
from apa_lightning.pocket.assembly import complete, missing, require
from apa_lightning.pocket.parts.listening import LOSSES, QUOTIENTS, TIMESTEPS, denoising_loss, listening_losses, sample
from apa_lightning.pocket.parts.part import PocketPart, save_half
from apa_lightning.pocket.text.prompt_streams import PromptStreams
from apa_lightning.utils.pretrained import frozen, no_progress_bars
from apa_lightning.utils.rng import generator_for


@dataclass(frozen=True)
class Phase:
    """What training items are told for some steps.

    Attributes:
        until: the first optimizer step after the phase; null: to the end.
        true_audio: share of batches whose language-of-audio stream is AudioMAE's tokens of the clip itself; in the others
            it is generated from the prompt.
        rates: pooling rates omega of true tokens, one drawn for each batch; they must be among 1, 2, 4, 8.
        text: share of items that keep their prompt; the others have the empty one's streams.
        audio: share of items that keep their true tokens; the others have zeros.
        timesteps: lowest and highest timestep.
    """

    until: int | None = None
    true_audio: float = 0.7
    rates: Sequence[int] = POOLING_RATES
    text: float = 0.9
    audio: float = 0.95
    timesteps: tuple[int, int] = (0, TIMESTEPS - 1)

    def __post_init__(self) -> None:
        if self.until is not None and self.until < 1:
            raise InputError(f"model.phases.until: {self.until}; give the first step after the phase, or null.")
        for name in ("true_audio", "text", "audio"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"model.phases.{name}: {getattr(self, name)} is no share; give 0 to 1.")
        if not self.rates:
            raise InputError("model.phases.rates: empty; give one or more of 1, 2, 4, 8.")
        for rate in self.rates:
            check_pooling_rate(rate, "model.phases.rates")
        low, high = self.timesteps
        if not 0 <= low <= high < TIMESTEPS:
            raise InputError(
                f"model.phases.timesteps: {list(self.timesteps)}; give the lowest and the highest of 0 to {TIMESTEPS - 1}."
            )


class PocketUNet(PocketPart):
    """Trains the U-Net to predict the noise in cached latents (Eq. 10) and writes the moving average of its weights.

    Batches are those of ``datamodules.EncodedDataModule``: ``mean`` and ``std`` (B, C, T, F), ``grid``
    (B, T', F', D), ``prompt`` and ``labels``. The text encoders, tokenizers and the LOA generator of ``folder`` are read and
    stay frozen. When all other parts are there, writing the U-Net completes the folder.

    Args:
        phases: the curriculum, in order; the last holds to the end of training.
        max_loss_weight: the loss of an item at signal-to-noise ratio SNR counts 1 / SNR times, at least once and at most so
            often; 1: epsilon MSE as it is. Where noise hides nearly everything, epsilon is nearly the input and its error
            tiny, but what is played is decided there: 1 / SNR weighs the error of the music instead (Salimans & Ho,
            arXiv 2202.00512, Sec. 4).
        ema_decay: of the moving average in the long run; it rises to that as ``(1 + n) / (10 + n)`` with the steps n.
        start: a folder whose ``unet`` to go on from instead of random weights, such as one that was written before.
        folder, learning_rate, warmup_steps, weight_decay, betas, seed: see :class:`PocketPart`.

    Raises:
        InputError: a setting cannot be; ``folder`` lacks a frozen part; ``start`` has no U-Net.
    """

    writes = ("unet",)

    def __init__(
        self,
        folder: Path = Path("runs/pocket/model"),
        phases: Sequence[Phase] = (Phase(),),
        max_loss_weight: float = 250.0,
        ema_decay: float = 0.999,
        start: Path | None = None,
        learning_rate: float = 5e-4,
        warmup_steps: int = 100,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        seed: int = 0,
    ):
        super().__init__(folder, learning_rate, warmup_steps, weight_decay, betas, seed)
        if not 0 <= ema_decay < 1:
            raise InputError(f"model.ema_decay: {ema_decay}; give 0 (no average) to below 1, for example 0.999.")
        if not max_loss_weight >= 1:
            raise InputError(f"model.max_loss_weight: {max_loss_weight}; give 1 (none) or more.")
        self.phases = ordered(phases)
        self.streams = PromptStreams(self.folder)
        self.scheduler = new_scheduler()
        self.loss_weights = inverse_snr(self.scheduler.alphas_cumprod, max_loss_weight)  # type: ignore[attr-defined]
        if start is not None:
            require(Path(start), ("unet",))
            with no_progress_bars():
                self.unet: Any = AudioLDM2UNet2DConditionModel.from_pretrained(
                    Path(start) / "unet", torch_dtype=torch.float32
                ).train()
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator_for(seed, "unet").initial_seed())
                self.unet = POCKET.build_unet()
        self.average = frozen(AveragedModel(self.unet, multi_avg_fn=moving_average(ema_decay)))
        self.losses = torch.nn.ModuleDict({name: MeanMetric(nan_strategy="disable") for name in LOSSES})

    def train(self, mode: bool = True) -> "PocketUNet":
        """The average stays in eval mode."""
        super().train(mode)
        self.average.eval()
        return self

    @property
    def phase(self) -> Phase:
        """The phase of the present step."""
        return phase_at(self.phases, self.global_step)

    # --- training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        phase, draw = self.phase, self.draws("step")
        text, loa = self.conditions(batch, phase, draw)
        latents = sample(batch, draw)
        low, high = phase.timesteps
        timesteps = torch.randint(low, high + 1, (len(latents),), generator=draw)
        losses = denoising_loss(self.unet, self.scheduler, latents, timesteps, text, loa, draw)
        weights = self.loss_weights[timesteps] / self.loss_weights[low : high + 1].mean()
        loss = (weights.to(losses) * losses).mean()
        self.log("train/loss", loss, prog_bar=True, batch_size=len(latents))
        return loss

    def conditions(self, batch: dict[str, Any], phase: Phase, draw: torch.Generator) -> tuple[TextStreams, Tensor]:
        """The text streams of a batch with prompts dropped, and its language-of-audio stream (B, N, D): pooled true tokens
        or what is generated from the same prompts."""
        true_audio = float(torch.rand((), generator=draw)) < phase.true_audio
        omega = PoolingRates(phase.rates).draw(draw)
        kept = torch.rand(2, len(batch["prompt"]), generator=draw) < torch.tensor([[phase.text], [phase.audio]])
        prompts = [prompt if keep else "" for prompt, keep in zip(batch["prompt"], kept[0].tolist(), strict=True)]
        text = self.streams(prompts, self.device)
        return text, audio_tokens(batch["grid"].float(), ~kept[1], omega) if true_audio else text.generated

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.unet)

    # --- validation: the average's losses, with draws that repeat ------------------------------------------------------

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The loss as text-to-music uses the U-Net, and the losses whose quotients are the gates."""
        key = (self.seed, "validate", batch_idx, self.global_rank)
        losses = listening_losses(self.average.module, self.scheduler, self.streams, batch, key)
        for name, values in losses.items():
            if len(values):
                self.losses[name].update(values)  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        values = {name: metric.compute() for name, metric in self.losses.items()}  # type: ignore[operator]
        for metric in self.losses.values():
            metric.reset()  # type: ignore[operator]
        self.log("val/loss", values["loss"], prog_bar=True, sync_dist=True)
        for name, more, less in QUOTIENTS:
            if not values[less].isnan():  # nothing to compare with
                self.log(f"val/{name}", values[more] / values[less] - 1, sync_dist=True)
        if not values["matched_omega_1"].isnan():
            self.log("val/loss_matched_omega_1", values["matched_omega_1"], sync_dist=True)

    # --- writing ----------------------------------------------------------------------------------------------------

    def write(self, folder: Path) -> None:
        """The moving average, in two files: one would be larger than a file of the pocket may be."""
        save_half(self.average.module, folder / "unet", max_shard_size="12MB")

    def export(self) -> None:
        """Replace the written U-Net and, when all other parts are there, make the folder loadable."""
        super().export()
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run and not missing(self.folder):  # type: ignore[attr-defined]
            complete(self.folder)


def ordered(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """The phases, checked to follow each other."""
    if not phases:
        raise InputError("model.phases: empty; give at least one phase.")
    ends = [phase.until for phase in phases]
    if None in ends[:-1]:
        raise InputError("model.phases.until: null before the last phase; give the step at which the next one begins.")
    known = [end for end in ends if end is not None]
    if known != sorted(set(known)):
        raise InputError(f"model.phases.until: {known}; each phase must end later than the one before.")
    return tuple(phases)


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase that holds at an optimizer step, the last one beyond all ends."""
    return next((phase for phase in phases if phase.until is None or step < phase.until), phases[-1])


def moving_average(decay: float) -> Any:
    """An averaging function for ``AveragedModel`` whose decay rises to ``decay`` with the updates n as (1 + n) / (10 + n)."""

    def update(averages: Any, weights: Any, updates: Tensor) -> None:
        n = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, weights, updates)

    return update
