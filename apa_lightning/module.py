"""The LightningModule: a frozen backbone and audio encoder, a trained adapter. Equations live elsewhere as pure functions."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torchmetrics import MeanMetric

from apa_lightning.adapters.base import Adapter
from apa_lightning.backbones.base import Backbone, Objective
from apa_lightning.backbones.factory import load_backbone
from apa_lightning.backbones.vocoding import Vocoder
from apa_lightning.backbones.window_encoder import KeepingEncoder, WindowEncoder
from apa_lightning.conditioning.audio_mae import LoaLayers, load_conditioner
from apa_lightning.conditioning.base import AudioConditioner
from apa_lightning.conditioning.dropout import ConditionDropout, DroppedAudio, PoolingRates, audio_tokens
from apa_lightning.conditioning.pooling import pooling_kernel
from apa_lightning.diffusion.objectives import LossWeighting
from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.errors import InputError
from apa_lightning.utils.lightning_compat import is_logged, leave_out_of_ddp, training_batch
from apa_lightning.utils.rng import generator_for

log = logging.getLogger(__name__)

OptimizerCallable = Callable[[Iterable], torch.optim.Optimizer]
SchedulerCallable = Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]


def adamw(params: Iterable) -> torch.optim.Optimizer:
    """The paper's optimizer: AdamW, learning rate 1e-4, betas (0.9, 0.999), eps 1e-8, weight decay 1e-2."""
    return torch.optim.AdamW(params, lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2)


class AudioPromptModule(L.LightningModule):
    """Trains an Audio Prompt Adapter (arXiv 2407.16564) next to a frozen text-to-music model, and edits with it.

    The parts are loaded in :meth:`configure_model`: before it there is nothing but settings.

    Args:
        backbone: Folder or hub id of an AudioLDM2 or a Stable Audio, or ``embedded``: the pocket of the package. Or any
            :class:`apa_lightning.backbones.base.Backbone` by ``class_path``.
        audio_encoder: AudioMAE folder, weights file or hub id, or ``embedded``: the pocket's. Or any
            :class:`apa_lightning.conditioning.base.AudioConditioner` by ``class_path``.
        adapter: Adapter to start from or to edit with: our file, a published ``pytorch_model.bin``, a Trainer's checkpoint,
            the folder of a run, or a folder or hub id of a published adapter; ``embedded`` is the one that was trained on the
            embedded backbone; ``null`` starts from a copy of the backbone's own text K/V. Or any
            :class:`apa_lightning.adapters.base.Adapter` by ``class_path``.
        further_adapters: Files of further adapters to edit with; ``audio_prompts`` says what each reads. Training has one.
        loa_layers: ``last`` (AP-Adapter) or ``mean_last_three`` (AudioLDM2's own language of audio); ``null`` means as
            ``adapter`` was trained, ``last`` for a new one.
        pooling_rates: The random pooling rate omega of each batch. Each must divide the audio encoder's grid.
        condition_dropout: Share of items that lose text, audio or both.
        dropped_audio: What a dropped audio prompt is: ``zeros`` (paper) or ``zero_fbank`` (published code); ``null`` means as
            ``adapter`` was trained: ``zeros`` for a new one, ``zero_fbank`` for a published checkpoint.
        unconditional_audio: The audio prompt of Eq. 12's unconditional branch when editing: ``zeros`` (paper: none) or
            ``zero_fbank`` (published code); ``null`` means as ``dropped_audio``.
        edit_defaults: Defaults of the knobs that an edit leaves out: ``paper``, or a YAML file of values by knob and task;
            ``null`` means those that are stored with the backbone.
        ap_scale: The scale alpha in training; 1 in the paper.
        loss_weighting: ``uniform`` (paper), or ``inverse_snr``: training losses at signal-to-noise ratio SNR are weighted by
            1 / SNR, so that noisy timesteps, where the tune is decided, are learned too. Validation losses are never weighted.
        max_loss_weight: Upper bound of such a weight.
        optimizer: Builds the optimizer from the adapter's parameters; by default the paper's AdamW.
        lr_scheduler: Builds a per-step schedule from the optimizer; by default constant, as in the paper.
        gradient_checkpointing: Recompute the backbone's activations in the backward pass to save memory.
        compile: Compile the repeated blocks of the backbone (faster steps after a slow start).
        half_backbone: Hold the frozen weights in bfloat16; use with ``--trainer.precision bf16-mixed``.
        vocoder: What makes sound of edits: the ``backbone``'s own; the same ``refined`` by a few iterations of Griffin-Lim,
            which keeps pitch where a small vocoder wavers; or ``griffin_lim`` alone. ``null`` means what suits the backbone:
            ``refined`` for the pocket (its ``vocoder/config.json`` says so), else ``backbone``.
        seed: Of every training draw (omega, dropout, noise, timesteps); with the step and rank it determines them.
    """

    backbone: Backbone
    audio_encoder: AudioConditioner
    adapter: Adapter
    objective: Objective
    validation_losses: Any  # ModuleDict of MeanMetric

    def __init__(
        self,
        backbone: str | Backbone = "embedded",
        audio_encoder: str | AudioConditioner = "embedded",
        adapter: str | Adapter | None = None,
        further_adapters: list[str] | None = None,
        loa_layers: LoaLayers | None = None,
        pooling_rates: PoolingRates = PoolingRates(),
        condition_dropout: ConditionDropout = ConditionDropout(),
        dropped_audio: DroppedAudio | None = None,
        unconditional_audio: DroppedAudio | None = None,
        edit_defaults: str | None = None,
        ap_scale: float = 1.0,
        loss_weighting: LossWeighting = "uniform",
        max_loss_weight: float = 250.0,
        optimizer: OptimizerCallable = adamw,
        lr_scheduler: SchedulerCallable | None = None,
        gradient_checkpointing: bool = False,
        compile: bool = False,
        half_backbone: bool = False,
        vocoder: Vocoder | None = None,
        seed: int = 0,
    ):
        super().__init__()
        self.sources: dict[str, Any] = {"backbone": backbone, "audio_encoder": audio_encoder, "adapter": adapter}
        self.further_sources = further_adapters or []
        self.loa_layers, self.dropped_audio, self.unconditional_audio = loa_layers, dropped_audio, unconditional_audio
        self.edit_defaults = None if edit_defaults is None else EditDefaults(edit_defaults)
        self.pooling_rates, self.condition_dropout = pooling_rates, condition_dropout
        self.loss_weighting, self.max_loss_weight = loss_weighting, max_loss_weight
        self.gradient_checkpointing, self.compile_blocks = gradient_checkpointing, compile
        self.half_backbone, self.vocoder = half_backbone, vocoder
        self.ap_scale, self.optimizer, self.lr_scheduler, self.seed = ap_scale, optimizer, lr_scheduler, seed
        self.lr: float | None = None  # Lightning's LearningRateFinder puts its suggestion here
        kinds = (f"{kind}_omega_{omega}" for omega in pooling_rates.rates for kind in ("matched", "shuffled"))
        self.validation_losses = torch.nn.ModuleDict({kind: MeanMetric(nan_strategy="disable") for kind in kinds})

    def configure_model(self) -> None:
        """Load backbone, adapter and audio encoder, check that they fit, and join them. Repeated calls do nothing.

        Raises:
            FileNotFoundError, InputError: If a part cannot be loaded, or the parts do not fit each other.
        """
        if hasattr(self, "backbone"):
            return
        sources = self.sources
        dtype = torch.bfloat16 if self.half_backbone else torch.float32
        backbone = load_backbone(sources["backbone"], dtype, vocoder=self.vocoder)
        adapter = backbone.new_adapter(sources["adapter"])
        trained = adapter.metadata
        if self.loa_layers and trained.get("loa_layers", self.loa_layers) != self.loa_layers:
            raise InputError(
                f"model.loa_layers: {self.loa_layers}, but {_name(sources['adapter'])} was trained with {trained['loa_layers']}. "
                "Leave it out."
            )
        self.further_adapters = torch.nn.ModuleList(backbone.new_adapter(source) for source in self.further_sources)
        layers = cast(LoaLayers | None, self.loa_layers or trained.get("loa_layers"))
        audio_encoder = backbone.fit_conditioner(load_conditioner(sources["audio_encoder"], layers))
        self.objective = backbone.objective(self.loss_weighting, self.max_loss_weight)
        self.dropped_audio = self.dropped_audio or cast(DroppedAudio, trained.get("dropped_audio", "zeros"))
        adapter.metadata |= {
            "backbone": _name(sources["backbone"]),
            "audio_encoder": _name(sources["audio_encoder"]),
            **audio_encoder.conventions(),
            "dropped_audio": self.dropped_audio,
            "condition_dropout": self.condition_dropout.scheme,
        }
        backbone.install([adapter])
        backbone.set_scale(self.ap_scale)
        if self.gradient_checkpointing:
            backbone.enable_gradient_checkpointing()
        if self.compile_blocks:
            backbone.compile_blocks()
        self.adapter, self.audio_encoder, self.backbone = adapter, audio_encoder, backbone
        editor = self.editor()
        editor.check_defaults()
        self.edit_defaults = editor.edit_defaults
        # DDP would broadcast the frozen weights at the start and their buffers in every step; each process has loaded its own.
        frozen = [
            name for name, _ in (*self.named_parameters(), *self.named_buffers()) if not name.startswith("adapter.")
        ]
        leave_out_of_ddp(self, frozen)

    def setup(self, stage: str) -> None:
        if stage == "fit" and self.ap_scale == 0:
            raise InputError(
                "model.ap_scale: 0 in training gives the adapter nothing to learn; the paper trains with 1."
            )
        if self.half_backbone and not str(self.trainer.precision).startswith("bf16"):
            raise InputError(
                f"model.half_backbone: needs --trainer.precision bf16-mixed, not {self.trainer.precision}."
            )
        self.configure_model()
        self._validation_encoder = KeepingEncoder(self.backbone, self.audio_encoder)
        if self.further_sources and stage != "predict":
            raise InputError(
                f"model.further_adapters: {', '.join(self.further_sources)}; {stage} has one adapter. Leave it out: it is for "
                "editing."
            )
        for omega in () if stage == "predict" else self.pooling_rates.rates:
            pooling_kernel(self.audio_encoder.grid_size, omega, fields=["pooling_rates.rates"] * 2)

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

        encoder = self.window_encoder()
        text = encoder.text_of(batch, prompts)
        loa = audio_tokens(encoder.grid_of(batch), drop_audio, omega, self._null())
        losses, weights = self._losses(encoder.target_of(batch, draw), text, loa, draw)
        loss = (losses * weights).mean()

        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        if is_logged(self.trainer, self.global_step + 1):
            # Not self.log: at a step with another omega it would repeat the last value of this one.
            for logger in self.loggers:
                logger.log_metrics({f"train/loss_omega_{omega}": float(loss.detach())}, self.global_step)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The loss for each omega, with the clip's own and with another clip's audio prompt.

        Draws repeat at every validation, and nothing is dropped. The gap between the two losses says how much the prediction
        depends on the audio prompt.
        """
        encoder = self._validation_encoder
        text, grid = encoder.text_of(batch, batch["prompt"]), encoder.grid_of(batch)
        encoded = encoder.target_of(batch, generator_for(self.seed, "latents", batch_idx, self.global_rank))
        keep = torch.zeros(len(grid), dtype=torch.bool)
        for omega in self.pooling_rates.rates:
            loa = audio_tokens(grid, keep, omega)
            for kind, tokens in (("matched", loa), ("shuffled", loa.roll(1, dims=0))):
                metric = self.validation_losses[f"{kind}_omega_{omega}"]
                if kind == "shuffled" and len(loa) == 1:
                    metric.update(0.0, 0)  # of no weight: there is no other clip
                    continue
                draw = generator_for(self.seed, "validate", batch_idx, self.global_rank)
                metric.update(self._losses(encoded, text, tokens, draw)[0].mean(), len(loa))

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

    def _losses(self, encoded: Tensor, text: Any, loa: Tensor, draw: torch.Generator) -> tuple[Tensor, Tensor]:
        """Eq. 10: the loss (B,) of each item and its weight (B,) in training."""
        return self.objective(encoded, text, [self.adapter.project(loa)], draw)

    def window_encoder(self) -> WindowEncoder:
        """What encodes the windows and prompts of a batch, or of a cache."""
        return WindowEncoder(self.backbone, self.audio_encoder)

    def _null(self) -> Tensor | None:
        return self.audio_encoder.null() if self.dropped_audio == "zero_fbank" else None

    def configure_optimizers(self):
        try:
            optimizer = self.optimizer(self.adapter.parameters())
        except ValueError as error:  # torch's "Invalid learning rate: -1.0"
            raise InputError(f"model.optimizer: {error}.") from error
        for group in optimizer.param_groups if isinstance(optimizer, torch.optim.AdamW) else ():
            # One kernel for all weights. Given to the optimizer as an argument, it would take over the unscaling of gradients,
            # and Lightning would refuse to clip them in mixed precision; a group's own setting leaves that to the scaler.
            if group["fused"] is None and not group["foreach"]:
                group["fused"] = True
        for group in optimizer.param_groups if self.lr is not None else ():
            group["lr"] = self.lr
        if self.lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.lr_scheduler(optimizer), "interval": "step"}}

    # --- editing ----------------------------------------------------------------------------------------------------

    def editor(self) -> AudioEditor:
        """The editor on this module's parts as they are now."""
        self.configure_model()
        unconditional = self.unconditional_audio or self.dropped_audio
        adapters = [self.adapter, *cast(list[Adapter], self.further_adapters)]
        return AudioEditor(self.backbone, self.audio_encoder, adapters, unconditional, self.edit_defaults)

    def predict_step(self, batch: list[EditRequest], batch_idx: int) -> list[EditResult]:
        return self.editor().edit(batch, batch_size=len(batch), progress=False)

    # --- checkpoints: the adapter alone, loaded strictly ---------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = {f"adapter.{key}": value for key, value in self.adapter.state_dict().items()}
        checkpoint["adapter"] = {
            "metadata": {**self.adapter.metadata, "variant": self.adapter.variant},
            "backbone_fingerprint": self.adapter.backbone_fingerprint,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the adapter by name, then refill the frozen keys, so that Lightning's own load is strict too."""
        about = checkpoint.get("adapter")
        if about is None:
            raise InputError(
                "ckpt_path: the file is not a checkpoint of apa_lightning. For an adapter file use --model.adapter."
            )
        trained = about["metadata"]
        self.adapter.check_backbone(
            about["backbone_fingerprint"], "ckpt_path: the checkpoint", trained.get("backbone", "another backbone")
        )
        weights = {key.removeprefix("adapter."): value for key, value in checkpoint["state_dict"].items()}
        self.adapter.check(weights, "ckpt_path: the checkpoint", trained)
        fields = {name: f"model.{name}" for name in (*self.audio_encoder.conventions(), "dropped_audio")}
        fields |= {name: f"model.backbone.init_args.{name}" for name in self.backbone.conventions()}
        for name, field in fields.items():
            if trained.get(name) != self.adapter.metadata[name]:
                raise InputError(
                    f"{field}: {self.adapter.metadata[name]}, but the checkpoint was trained with {trained.get(name)}. "
                    f"Give --{field} {trained.get(name)}."
                )
        checkpoint["state_dict"] |= {
            name: value for name, value in self.state_dict().items() if not name.startswith("adapter.")
        }


def _name(source: object) -> str:
    """A part's source as adapter files name it: its string, or the class of an object."""
    return source if isinstance(source, str) else f"{type(source).__module__}.{type(source).__qualname__}"
