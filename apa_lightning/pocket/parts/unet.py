"""Training the U-Net of the pocket backbone: noise prediction with two text streams.

One of them is the language-of-audio stream. AudioLDM2's U-Net learned from true AudioMAE features in it before it saw
generated ones (arXiv 2308.05734, Sec. 3.3): that is why an adapter whose keys and values start as a copy of that stream's
can use audio tokens. Later phases may train it with an adapter beside that stream, which then is always generated: the
frozen U-Net has learned to be adapted, and what its adapter knows, a copy of its text keys and values does not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchmetrics import MeanMetric

from apa_lightning.adapters.attention import install, with_audio_tokens
from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.backbones.architectures import POCKET, new_scheduler
from apa_lightning.backbones.audioldm2 import adapted_layers
from apa_lightning.backbones.prompt_encoder import TextStreams
from apa_lightning.conditioning.dropout import PoolingRates, audio_tokens
from apa_lightning.diffusion.losses import inverse_snr
from apa_lightning.pocket.assembly import complete, load_part, missing, save_half
from apa_lightning.pocket.parts.conditioning_gap import LOSSES, QUOTIENTS, conditioning_losses, denoising_loss, sample
from apa_lightning.pocket.parts.part import FOLDER, PocketPart, check
from apa_lightning.pocket.parts.phases import Phase, ordered, phase_at
from apa_lightning.pocket.text.prompt_streams import PromptStreams
from apa_lightning.pocket.window_encoder import WindowEncoder
from apa_lightning.utils.pretrained import frozen
from apa_lightning.utils.rng import generator_for, seeded


class PocketUNet(PocketPart):
    """Trains the U-Net to predict the noise in cached latents (Eq. 10) and writes the moving average of its weights.

    Batches are those of ``datamodules.EncodedDataModule``: ``mean`` and ``std`` (B, C, T, F), ``grid``
    (B, T', F', D), ``prompt`` and ``labels``. The text encoders, tokenizers and the LOA generator of ``folder`` are read and
    stay frozen. When all other parts are there, writing the U-Net completes the folder.

    Args:
        folder: Folder of the pocket backbone.
        phases: The curriculum, in order; the last phase holds to the end of training.
        loss_weighting: ``inverse_snr``: the loss of an item counts 1 / SNR times, at least once; ``uniform``: epsilon MSE as
            it is. Where noise hides nearly everything, epsilon is nearly the input and its error is tiny, but what is
            played is decided there: 1 / SNR weights the error of the music instead (Salimans & Ho, arXiv 2202.00512,
            Sec. 4).
        max_loss_weight: Upper bound of a weight of ``inverse_snr``.
        ema_decay: Decay of the moving average in the long run; it rises to that as ``(1 + n) / (10 + n)`` with the steps n.
        start: Folder whose ``unet`` replaces random weights, for example one that was written before.
        **schedule: Settings of :class:`PocketPart`.
    """

    writes = ("unet",)
    evaluated = ("average",)

    def __init__(
        self,
        folder: Path = FOLDER,
        phases: Sequence[Phase] = (Phase(),),
        loss_weighting: Literal["uniform", "inverse_snr"] = "inverse_snr",
        max_loss_weight: float = 250.0,
        ema_decay: float = 0.999,
        start: Path | None = None,
        **schedule: Any,
    ):
        super().__init__(folder, **schedule)
        check("ema_decay", ema_decay, 0 <= ema_decay < 1, "give 0 (no average) to below 1, for example 0.999.")
        check("max_loss_weight", max_loss_weight, max_loss_weight >= 1, "give 1 (no weights) or more.")
        self.phases = ordered(phases)
        self.streams = PromptStreams(self.folder)
        self.scheduler: Any = new_scheduler()
        most = max_loss_weight if loss_weighting == "inverse_snr" else 1
        self.loss_weights = inverse_snr(self.scheduler.alphas_cumprod, most)  # type: ignore[attr-defined]
        if start is not None:
            self.unet: Any = load_part(Path(start), "unet").train()
        else:
            with seeded(generator_for(self.seed, "unet").initial_seed()):
                self.unet = POCKET.build_unet()
        self.average = frozen(AveragedModel(self.unet, multi_avg_fn=moving_average(ema_decay)))
        self.adapter: AudioPromptAdapter | None = None
        if any(phase.adapted for phase in self.phases):
            layers = adapted_layers(self.unet, next(filter(None, self.unet.config.cross_attention_dim[0])))
            self.adapter = AudioPromptAdapter(layers)
            install(layers, [self.adapter])
        self.losses = torch.nn.ModuleDict({name: MeanMetric(nan_strategy="disable") for name in LOSSES})

    @property
    def phase(self) -> Phase:
        """The phase of the present step."""
        return phase_at(self.phases, self.global_step)

    def window_encoder(self) -> WindowEncoder:
        """What encodes the windows of a cache."""
        return WindowEncoder(self.folder)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        phase, draw = self.phase, self.draws("step")
        text, loa = self.conditions(batch, phase, draw)
        latents = sample(batch, draw)
        low, high = phase.timesteps
        timesteps = torch.randint(low, high + 1, (len(latents),), generator=draw)
        losses = denoising_loss(self.unet, self.scheduler, latents, timesteps, text, loa, draw)
        weights = self.loss_weights[timesteps] / self.loss_weights[low : high + 1].mean()
        loss = (weights.to(losses) * losses).mean()
        self.log_scores("train", {"loss": loss}, len(latents))
        return loss

    def conditions(self, batch: dict[str, Any], phase: Phase, draw: torch.Generator) -> tuple[TextStreams, Any]:
        """The text streams of a batch with prompts dropped, and its language-of-audio stream (B, N, D).

        The latter is pooled true tokens, or generated from the same prompts; an adapter may read tokens beside a generated one.
        """
        true_audio = float(torch.rand((), generator=draw)) < phase.true_audio
        omega = PoolingRates(phase.rates).draw(draw)
        kept = torch.rand(2, len(batch["prompt"]), generator=draw) < torch.tensor([[phase.text], [phase.audio]])
        paired = phase.paired > 0 and float(torch.rand((), generator=draw)) < phase.paired
        adapted = phase.adapted > 0 and float(torch.rand((), generator=draw)) < phase.adapted
        with_audio = true_audio or adapted
        grid = batch["prompt_grid"] if with_audio and paired and "prompt_grid" in batch else batch["grid"]
        kept[0] |= (grid is not batch["grid"]) & kept[1]  # a paired item without its prompt could be anything
        prompts = [prompt if keep else "" for prompt, keep in zip(batch["prompt"], kept[0].tolist(), strict=True)]
        text = self.streams(prompts, self.device)
        if not with_audio:
            return text, text.generated
        tokens = audio_tokens(grid.float(), ~kept[1], omega)
        return text, with_audio_tokens(text.generated, [tokens]) if adapted else tokens

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.average.update_parameters(self.unet)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collect the loss of text-to-music, and the losses whose quotients are the gates."""
        key = (self.seed, "validate", batch_idx, self.global_rank)
        losses = conditioning_losses(self.average.module, self.scheduler, self.streams, batch, key)
        for name, values in losses.items():
            if len(values):
                self.losses[name].update(values)  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        values = {name: metric.compute() for name, metric in self.losses.items()}  # type: ignore[operator]
        for metric in self.losses.values():
            metric.reset()  # type: ignore[operator]
        scores = {"loss": values["loss"], "loss_matched_omega_1": values["matched_omega_1"]}
        scores |= {name: values[more] / values[less] - 1 for name, more, less in QUOTIENTS}
        self.log_scores("val", {name: value for name, value in scores.items() if not value.isnan()}, 1)

    def write(self, folder: Path) -> None:
        """The moving average, in two files: one would be larger than a file of the pocket may be."""
        save_half(self.average.module, folder / "unet", max_shard_size="12MB")

    def export(self) -> None:
        """Replace the written U-Net and, when all other parts are there, make the folder loadable."""
        super().export()
        if self.writing and not missing(self.folder):
            complete(self.folder)


def moving_average(decay: float) -> Any:
    """An averaging function for ``AveragedModel`` whose decay rises to ``decay`` with the updates n as (1 + n) / (10 + n)."""

    def update(averages: Any, weights: Any, updates: Tensor) -> None:
        n = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averages, weights, updates)

    return update
