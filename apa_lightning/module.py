"""The LightningModule: a frozen backbone and encoder, a trained adapter. Equations live elsewhere as pure functions."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from apa_lightning.adapters import audio_prompt as adapters
from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone, Vocoder
from apa_lightning.backbones.text_streams import TextStreams
from apa_lightning.conditioning.audio_mae import AudioMAE, LoaLayers
from apa_lightning.conditioning.dropout import ConditionDropout, DroppedAudio, PoolingRates, audio_tokens
from apa_lightning.diffusion.losses import epsilon_loss, loss_weights
from apa_lightning.editing.editor import AudioEditor, EditRequest, EditResult
from apa_lightning.errors import InputError
from apa_lightning.utils.lightning_compat import leave_out_of_ddp, training_batch
from apa_lightning.utils.rng import generator_for, randn

log = logging.getLogger(__name__)

OptimizerCallable = Callable[[Iterable], torch.optim.Optimizer]
SchedulerCallable = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


def adamw(params: Iterable) -> torch.optim.Optimizer:
    """The paper's optimizer: AdamW, learning rate 1e-4, betas (0.9, 0.999), eps 1e-8, weight decay 1e-2."""
    return torch.optim.AdamW(params, lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)


def edit_together(editor: AudioEditor, requests: list[EditRequest]) -> list[EditResult]:
    """The editor's own edits of requests that share their knobs."""
    return editor.edit(requests, batch_size=len(requests), progress=False)


class AudioPromptModule(L.LightningModule):
    """Trains an Audio Prompt Adapter (arXiv 2407.16564) beside a frozen AudioLDM2, and edits with it.

    Args:
        backbone: AudioLDM2 folder or hub id, or ``embedded``: the pocket that comes with the package.
        audio_encoder: AudioMAE folder, weights file or hub id, or ``embedded``: the pocket's.
        adapter: adapter file to start from or to edit with (ours or a published ``pytorch_model.bin``); ``embedded`` is the
            one that was trained on the embedded backbone; ``null`` starts from a copy of the backbone's own text K/V.
        loa_layers: ``last`` (AP-Adapter) or ``mean_last_three`` (AudioLDM2's own language of audio); ``null`` means as
            ``adapter`` was trained, ``last`` for a new one.
        pooling_rates: the random pooling rate omega of each batch.
        condition_dropout: share of items that lose text, audio or both.
        dropped_audio: what a dropped audio prompt is: ``zeros`` (paper) or ``zero_fbank`` (published code); ``null`` means as
            ``adapter`` was trained: ``zeros`` for a new one, ``zero_fbank`` for a published checkpoint.
        unconditional_audio: the audio prompt of Eq. 12's unconditional branch when editing: ``zeros`` (paper: none) or
            ``zero_fbank`` (published code); ``null`` means as ``dropped_audio``.
        ap_scale: alpha in training; 1 in the paper.
        max_loss_weight: training losses at signal-to-noise ratio SNR count 1 / SNR times, at most so often (see
            :func:`apa_lightning.diffusion.losses.loss_weights`), so that noisy timesteps, where the tune is decided, are learned
            too; 1: epsilon MSE as it is, the paper's. Validation losses are never weighted.
        optimizer: builds the optimizer from the adapter's parameters; default: the paper's AdamW.
        lr_scheduler: builds a per-step schedule from the optimizer; default: constant, as in the paper.
        gradient_checkpointing: recompute the U-Net's transformers in the backward pass to save memory.
        compile: compile the repeated transformer blocks of the U-Net (faster steps after a slow start).
        half_backbone: hold the frozen weights in bfloat16; use with ``--trainer.precision bf16-mixed``.
        vocoder: what makes sound of edits: the ``backbone``'s own; the same ``refined`` by a few iterations of Griffin-Lim,
            which keeps pitch where a small vocoder wavers; or ``griffin_lim`` alone. ``null`` means what suits the backbone:
            ``refined`` for the pocket (its ``vocoder/config.json`` says so), else ``backbone``.
        seed: of every training draw (omega, dropout, noise, timesteps); with the step and rank it determines them.
    """

    backbone: AudioLDM2Backbone
    audio_encoder: AudioMAE
    adapter: AudioPromptAdapter
    validation_losses: Any  # ModuleDict of MeanMetric
    edit_by: Callable[[AudioEditor, list[EditRequest]], list[EditResult]]

    def __init__(
        self,
        backbone: str = "embedded",
        audio_encoder: str = "embedded",
        adapter: str | None = None,
        loa_layers: LoaLayers | None = None,
        pooling_rates: PoolingRates = PoolingRates(),
        condition_dropout: ConditionDropout = ConditionDropout(),
        dropped_audio: DroppedAudio | None = None,
        unconditional_audio: DroppedAudio | None = None,
        ap_scale: float = 1.0,
        max_loss_weight: float = 1.0,
        optimizer: OptimizerCallable = adamw,
        lr_scheduler: SchedulerCallable | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        half_backbone: bool = False,
        vocoder: Vocoder | None = None,
        seed: int = 0,
    ):
        super().__init__()
        if not max_loss_weight >= 1:
            raise InputError(f"model.max_loss_weight: {max_loss_weight}; give 1 (none) or more.")
        dtype = torch.bfloat16 if half_backbone else torch.float32
        self.backbone = AudioLDM2Backbone.from_pretrained(backbone, dtype, vocoder)
        self.adapter = self.backbone.new_adapter(adapter)
        trained = self.adapter.metadata
        if loa_layers and trained.get("loa_layers", loa_layers) != loa_layers:
            raise InputError(
                f"model.loa_layers: {loa_layers}, but {adapter} was trained with {trained['loa_layers']}. Leave it out."
            )
        self.dropped_audio = dropped_audio or trained.get("dropped_audio", "zeros")
        self.unconditional_audio = unconditional_audio
        self.audio_encoder = AudioMAE.from_pretrained(
            audio_encoder, cast(LoaLayers, loa_layers or trained.get("loa_layers", "last"))
        )
        self.backbone.check_audio_encoder(self.audio_encoder.embed_dim, self.audio_encoder.window_seconds)
        self.adapter.metadata |= {
            "backbone": str(backbone),
            "audio_encoder": str(audio_encoder),
            "loa_layers": self.audio_encoder.loa_layers,
            "dropped_audio": self.dropped_audio,
            "condition_dropout": condition_dropout.scheme,
        }
        adapters.install(self.backbone.unet, [self.adapter])
        adapters.set_scale(self.backbone.unet, ap_scale)
        if gradient_checkpointing:
            self.backbone.enable_gradient_checkpointing()
        if compile:
            self.backbone.compile_unet()
        weights = loss_weights(self.backbone.scheduler.alphas_cumprod, max_loss_weight)
        self.loss_weights = weights / weights.mean()
        self.pooling_rates, self.condition_dropout = pooling_rates, condition_dropout
        self.ap_scale, self.optimizer, self.lr_scheduler, self.seed = ap_scale, optimizer, lr_scheduler, seed
        self.edit_by = edit_together  # an evaluation has other systems too
        # DDP would broadcast the frozen weights at the start and their buffers in every step; each process has loaded its own.
        frozen = [
            name for name, _ in (*self.named_parameters(), *self.named_buffers()) if not name.startswith("adapter.")
        ]
        leave_out_of_ddp(self, frozen)
        kinds = (f"{kind}_omega_{omega}" for omega in pooling_rates.rates for kind in ("matched", "shuffled"))
        self.validation_losses = torch.nn.ModuleDict({kind: MeanMetric(nan_strategy="disable") for kind in kinds})

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.ap_scale == 0:
            raise InputError(
                "model.ap_scale: 0 in training gives the adapter nothing to learn; the paper trains with 1."
            )
        if self.backbone.dtype == torch.bfloat16 and not str(self.trainer.precision).startswith("bf16"):
            raise InputError(
                f"model.half_backbone: needs --trainer.precision bf16-mixed, not {self.trainer.precision}."
            )

    def on_predict_start(self) -> None:
        if self.adapter.is_untrained:
            log.warning(
                "model.adapter: none is given, so the edits use an untrained adapter: a copy of the backbone's text layers."
            )

    # --- training ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        draw = generator_for(self.seed, "fit", training_batch(self.trainer), self.global_rank)
        size = len(batch["prompt"])
        omega = self.pooling_rates.draw(draw)
        drop_text, drop_audio = self.condition_dropout.draw(size, draw)
        prompts = [
            "" if dropped else prompt for prompt, dropped in zip(batch["prompt"], drop_text.tolist(), strict=True)
        ]

        text = self.backbone.encode_text(prompts)
        loa = audio_tokens(self._grid(batch), drop_audio, omega, self._silence())
        losses, timesteps = self._denoising_losses(self._latents(batch, draw), text, loa, draw)
        loss = (losses * self.loss_weights[timesteps].to(losses)).mean()

        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        if (self.global_step + 1) % cast(Any, self.trainer).log_every_n_steps == 0:
            # Not self.log: at a step with another omega it would repeat the last value of this one.
            for logger in self.loggers:
                logger.log_metrics({f"train/loss_omega_{omega}": float(loss.detach())}, self.global_step)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The loss for each omega with draws that repeat at every validation and nothing dropped; beside it the loss with
        the audio prompts of other items: the gap says how much the audio is listened to."""
        text = self.backbone.encode_text(batch["prompt"])
        grid = self._grid(batch)
        latents = self._latents(batch, generator_for(self.seed, "latents", batch_idx, self.global_rank))
        keep = torch.zeros(len(grid), dtype=torch.bool)
        for omega in self.pooling_rates.rates:
            loa = audio_tokens(grid, keep, omega)
            for kind, tokens in (("matched", loa), ("shuffled", loa.roll(1, dims=0))):
                if kind == "shuffled" and len(loa) == 1:
                    continue
                draw = generator_for(self.seed, "validate", batch_idx, self.global_rank)
                self.validation_losses[f"{kind}_omega_{omega}"].update(
                    self._denoising_losses(latents, text, tokens, draw)[0].mean(), len(loa)
                )

    def on_validation_epoch_end(self) -> None:
        # Metrics of their own rather than log_dict in the step: there a process whose batches lack a key would leave the
        # others waiting.
        losses = {name: metric.compute() for name, metric in self.validation_losses.items()}
        for metric in self.validation_losses.values():
            metric.reset()
        # Nothing could be shuffled where every batch held one clip; any other NaN is shown.
        losses = {name: loss for name, loss in losses.items() if name.startswith("matched") or not loss.isnan()}
        matched = [loss for name, loss in losses.items() if name.startswith("matched")]
        if matched:
            self.log("val/loss", torch.stack(matched).mean(), sync_dist=True)
        self.log_dict({f"val/loss_{name}": loss for name, loss in losses.items()}, sync_dist=True)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        self.on_validation_epoch_end()

    def _denoising_losses(
        self, latents: Tensor, text: TextStreams, loa: Tensor, draw: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Eq. 10: noise -> prediction -> mean squared error (B,), and the timesteps (B,) on the CPU."""
        schedule = self.backbone.scheduler
        noise = randn(tuple(latents.shape), draw, latents)
        timesteps = torch.randint(schedule.config.num_train_timesteps, (len(latents),), generator=draw)
        times = timesteps.to(latents.device)
        noisy = schedule.add_noise(latents, noise, times)
        predicted = self.backbone.predict_noise(noisy.to(self.backbone.dtype), times, text, [loa])
        return epsilon_loss(predicted, noise), timesteps

    def _latents(self, batch: dict[str, Any], draw: torch.Generator) -> Tensor:
        """A sample of the VAE's posterior (B, C, T, F)."""
        noise = randn((len(batch["prompt"]), *self.backbone.latent_shape()), draw, batch["waveform"])
        return self.backbone.encode_audio(batch["waveform"], noise, batch.get("num_samples")).float()

    def _grid(self, batch: dict[str, Any]) -> Tensor:
        """The audio prompts' unpooled language of audio (B, 64, 8, D)."""
        return self.audio_encoder(self._fitting(batch), self.backbone.sample_rate, batch.get("num_samples"))

    def _silence(self) -> Tensor | None:
        return self.audio_encoder.silence() if self.dropped_audio == "zero_fbank" else None

    def _fitting(self, batch: dict[str, Any]) -> Tensor:
        """The waveforms (B, S), if they are one window long."""
        waveform = batch["waveform"]
        if waveform.shape[-1] != self.backbone.window_samples:
            raise InputError(
                f"data.audio_length_in_s: clips of {waveform.shape[-1] / self.backbone.sample_rate:.2f} s do not fit the "
                f"backbone's window of {self.backbone.window_seconds:.2f} s; leave the setting out to use the window."
            )
        return waveform

    def configure_optimizers(self):
        try:
            optimizer = self.optimizer(self.adapter.parameters())
        except ValueError as error:  # torch's "Invalid learning rate: -1.0"
            raise InputError(f"model.optimizer: {error}.") from error
        if self.lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}}

    # --- editing ----------------------------------------------------------------------------------------------------

    def editor(self) -> AudioEditor:
        """The editor on this module's parts as they are now."""
        unconditional = self.unconditional_audio or cast(DroppedAudio, self.dropped_audio)
        return AudioEditor(self.backbone, self.audio_encoder, [self.adapter], unconditional)

    def predict_step(self, batch: list[EditRequest], batch_idx: int) -> list[EditResult]:
        return self.edit_by(self.editor(), batch)

    # --- checkpoints: the adapter alone, loaded strictly ---------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {f"adapter.{key}": value for key, value in self.adapter.state_dict().items()}
        checkpoint["adapter"] = {
            "metadata": dict(self.adapter.metadata),
            "backbone_fingerprint": self.adapter.backbone_fingerprint,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the adapter by name, then refill the frozen keys, so that Lightning's own load is strict too."""
        about = checkpoint.get("adapter")
        if about is None:
            raise InputError(
                "ckpt_path: the file is no checkpoint of apa_lightning. For an adapter file use --model.adapter."
            )
        trained = about["metadata"]
        self.adapter.check_backbone(
            about["backbone_fingerprint"], "ckpt_path: the checkpoint", trained.get("backbone", "another backbone")
        )
        weights = {key.removeprefix("adapter."): value for key, value in checkpoint["state_dict"].items()}
        self.adapter.check(weights, "ckpt_path: the checkpoint")
        for name in ("loa_layers", "dropped_audio"):
            if trained.get(name) != self.adapter.metadata[name]:
                raise InputError(
                    f"model.{name}: {self.adapter.metadata[name]}, but the checkpoint was trained with {trained.get(name)}. "
                    f"Give --model.{name} {trained.get(name)}."
                )
        checkpoint["state_dict"] |= {
            name: value for name, value in self.state_dict().items() if not name.startswith("adapter.")
        }
