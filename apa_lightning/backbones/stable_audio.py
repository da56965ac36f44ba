"""Stable Audio Open 1.0 (arXiv 2407.14358): 44.1 kHz stereo, latents (B, C, T) of windows of 47.55 s, denoised by a transformer."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import ceil, floor
from typing import Any

import torch
from diffusers import AutoencoderOobleck, StableAudioDiTModel, StableAudioPipeline, StableAudioProjectionModel
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch import Tensor, nn
from transformers import T5EncoderModel, T5Tokenizer

from apa_lightning.adapters.base import AttentionLayer
from apa_lightning.adapters.rotary import PlacedTokens, RotaryDecoupledAttention, TimeCode, check_time_code
from apa_lightning.backbones.diffusion import DiffusionBackbone
from apa_lightning.backbones.factory import kind_of, stored_defaults
from apa_lightning.backbones.prompt_encoder import PromptEncoder
from apa_lightning.conditioning.base import AudioConditioner
from apa_lightning.conditioning.long_audio import covering
from apa_lightning.diffusion.vp_cosine import times_at, times_of, vp_cosine_scheduler
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import (
    LOADING_ERRORS,
    check_dtype,
    first_line,
    frozen,
    load_whole,
    no_progress_bars,
    only_errors,
    resolve_pipeline,
)
from apa_lightning.utils.windows import blend_windows, window_starts, window_weights

#: The parts of Stable Audio that hold weights.
PARTS = {
    "transformer": StableAudioDiTModel,
    "vae": AutoencoderOobleck,
    "text_encoder": T5EncoderModel,
    "projection_model": StableAudioProjectionModel,
}


@dataclass(frozen=True)
class TimedText:
    """Encoded prompts, and the place of their windows.

    Attributes:
        states: T5 states (B, 128, W), zero where a prompt is padded, as the model was trained.
        given: 1 where there is a prompt (B,). Without one the cross-attention reads zeros, also in place of the two tokens of
            time: the model was trained so for guidance.
        seconds: Start of the window and length of the recording (B, 2), in whole seconds as in the model's training.
    """

    states: Tensor
    given: Tensor
    seconds: Tensor

    def cat(self, other: "TimedText") -> "TimedText":
        """Both batches in one, this one first."""
        return TimedText(*(torch.cat([getattr(self, one.name), getattr(other, one.name)]) for one in fields(self)))


class StableAudioBackbone(DiffusionBackbone):
    """Stable Audio Open's parts, frozen and in eval mode; every size is read from the parts. Latents are (B, C, T).

    The model denoises whole windows: shorter recordings are followed by silence, and cost as much.

    Args:
        source: A folder in the hub's layout, or a hub id such as ``stabilityai/stable-audio-open-1.0``.
        time_code: How new adapters tell when a token of the audio prompt sounds: ``rotary``; ``rotary_values``, which rotates
            their values too; or ``none``. A trained adapter keeps its own.
    """

    kind = "stable_audio"
    layer_attention = RotaryDecoupledAttention
    # StableAudioDiTModel, AutoencoderOobleck, StableAudioProjectionModel: diffusers' are untyped
    transformer: Any
    vae: Any
    projection_model: Any
    _prompt_encoder: PromptEncoder

    def __init__(self, source: str | os.PathLike = "stabilityai/stable-audio-open-1.0", time_code: TimeCode = "rotary"):
        super().__init__()
        check_time_code(time_code)
        self.source, self.name, self.time_code = source, str(source), time_code
        self.span: float | None = None  # latent frames that the tokens of an audio prompt cover

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike,
        dtype: torch.dtype = torch.float32,
        name: str | None = None,
        time_code: TimeCode = "rotary",
    ) -> "StableAudioBackbone":
        """Load a folder or hub id.

        Args:
            source: See the class.
            dtype: Of the frozen weights.
            name: Shown in adapter files and results; ``None`` means ``source``.
            time_code: See the class.

        Raises:
            FileNotFoundError: If there is no such source.
            InputError: If the hub cannot be read, or the folder is not Stable Audio or is damaged.
        """
        backbone = cls(source, time_code)
        backbone.name = name or backbone.name
        backbone.load_weights(dtype)
        return backbone

    def load_weights(self, dtype: torch.dtype = torch.float32) -> None:
        """Load the parts, once."""
        if hasattr(self, "transformer"):
            return
        check_dtype(dtype)
        path = resolve_pipeline(self.source)
        if (found := kind_of(path)) != StableAudioPipeline.__name__:
            raise InputError(f"backbone: {self.source} holds a {found}; give a folder of a StableAudioPipeline.")
        try:
            self.scheduler = vp_cosine_scheduler(json.loads((path / "scheduler" / "scheduler_config.json").read_text()))
            with no_progress_bars(), only_errors():
                parts = {part: frozen(load_whole(kind, path, part, dtype=dtype)) for part, kind in PARTS.items()}
                tokenizer = T5Tokenizer.from_pretrained(path / "tokenizer")
                self.pipeline: Any = StableAudioPipeline(**parts, tokenizer=tokenizer, scheduler=self.scheduler)
        except InputError:
            raise
        except LOADING_ERRORS as error:
            raise InputError(f"backbone: {self.name} cannot be loaded as Stable Audio: {first_line(error)}") from error
        for part, module in parts.items():
            self.add_module(part, module)
        self.edit_defaults = stored_defaults(path)
        self.vae.enable_slicing()  # one item at a time: an activation of a window has a gigabyte
        self.times = times_of(self.scheduler.alphas_cumprod)
        self._prompt_encoder = PromptEncoder(self._encode_prompts, {"T5": tokenizer})

    # --- sizes ------------------------------------------------------------------------------------------------------

    @property
    def sample_rate(self) -> int:  # type: ignore[override]
        """Hz of the waveforms that go in and come out."""
        return self.vae.config.sampling_rate

    @property
    def audio_channels(self) -> int:  # type: ignore[override]
        """Channels of the waveforms: 2."""
        return self.vae.config.audio_channels

    @property
    def hop_samples(self) -> int:  # type: ignore[override]
        """Audio samples per latent frame."""
        return self.vae.hop_length

    @property
    def window_frames(self) -> int:  # type: ignore[override]
        """Latent frames of the window that the transformer was trained on (1024)."""
        return self.transformer.config.sample_size

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where the transformer is."""
        return self.transformer.device

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Precision of the transformer."""
        return self.transformer.dtype

    def latent_shape(self, frames: int | None = None) -> tuple[int, int]:
        """(C, T) of the latents of ``frames`` latent frames, by default of one window."""
        return self.transformer.config.in_channels, frames or self.window_frames

    def compile_blocks(self) -> None:
        """Compile the transformer's repeated blocks (regional compilation: one short compile serves all of them)."""
        for block in self.transformer.transformer_blocks:
            block.compile()

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the transformer's blocks in the backward pass: less memory, more time."""
        self.transformer.enable_gradient_checkpointing()

    # --- conditions ---------------------------------------------------------------------------------------------------

    def encode_text(self, prompts: Sequence[str]) -> TimedText:
        """The prompts, each for a recording that fills the window; an empty one means unconditional. See :meth:`placed`.

        Raises:
            InputError: If a prompt is not a string.
        """
        states = torch.stack([row for (row,) in self._prompt_encoder(prompts, self.device)])
        given = torch.tensor([float(bool(prompt)) for prompt in prompts], device=self.device)
        seconds = torch.tensor([[0.0, ceil(self.window_seconds)]] * len(prompts), device=self.device)
        return TimedText(states, given, seconds)

    def _encode_prompts(self, prompts: list[str], device: torch.device) -> tuple[Tensor]:
        return (self.pipeline.encode_prompt(prompts, device, do_classifier_free_guidance=False),)

    def placed(self, text: TimedText, places: Sequence[tuple[float, float]]) -> TimedText:
        """The condition with each window's start and its recording's length, rounded as in the model's training."""
        seconds = [[floor(start), ceil(round(total, 3))] for start, total in places]
        return replace(text, seconds=torch.tensor(seconds, dtype=torch.float32, device=text.seconds.device))

    def fit_conditioner(self, encoder: AudioConditioner) -> AudioConditioner:
        """The audio encoder, run over the window: AudioMAE over five of its own."""
        fitted = super().fit_conditioner(covering(encoder, self.window_seconds))
        self.span = fitted.window_seconds * self.sample_rate / self.hop_samples
        return fitted

    def conventions(self) -> dict[str, str]:
        """The time code of the audio prompt's tokens."""
        return {"time_code": self.time_code}

    # --- audio ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_moments(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, C, T) of the latents of waveforms, whose level is kept.

        A waveform longer than the window is encoded in overlapping windows that are cross-faded.

        Args:
            waveform: At :attr:`sample_rate`: (B, 2, S), or mono (B, S), which becomes both channels.
            lengths: Not needed: the VAE reads padding as silence.
        """
        waveform = (waveform[:, None] if waveform.ndim == 2 else waveform).expand(-1, self.audio_channels, -1)
        length, window, hop = waveform.shape[-1] // self.hop_samples, self.window_frames, self.hop_samples
        starts = window_starts(length, window, window // 4)
        weights = window_weights(length, window, starts)
        posteriors = [
            self.vae.encode(waveform[..., start * hop : (start + window) * hop].to(self.vae.dtype)).latent_dist
            for start in starts
        ]
        mean, std = (
            blend_windows(torch.stack([getattr(one, moment) for one in posteriors]), starts, weights, length)
            for moment in ("mean", "std")
        )
        return mean, std

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Waveforms (B, 2, T * hop_samples) of latents (B, C, T), through the VAE's decoder; long ones in windows."""
        length, window, hop = latents.shape[2], self.window_frames, self.hop_samples
        starts = window_starts(length, window, window // 4)
        weights = window_weights(length, window, starts).repeat_interleave(hop, dim=1)
        sounds = [self.vae.decode(latents[:, :, s : s + window].to(self.vae.dtype)).sample.float() for s in starts]
        sound = blend_windows(torch.stack(sounds), [s * hop for s in starts], weights, length * hop)
        return sound if self.audio_channels == 2 else sound[:, 0]

    # --- diffusion --------------------------------------------------------------------------------------------------

    def predict(self, latents: Tensor, times: Tensor, text: TimedText, audio_tokens: Sequence[Tensor] = ()) -> Tensor:
        """The transformer's v(z_t, t, c_x, c_y), see :meth:`DiffusionBackbone.predict`."""
        latents = latents.to(self.dtype)
        length, head_dim = latents.shape[2], self.transformer.config.attention_head_dim
        numbers = self.projection_model(start_seconds=text.seconds[:, 0], end_seconds=text.seconds[:, 1])
        time_tokens = numbers.seconds_start_hidden_states, numbers.seconds_end_hidden_states
        condition = torch.cat([text.states.to(latents), *time_tokens], dim=1) * text.given.to(latents)[:, None, None]
        placed = None
        if audio_tokens:
            tokens = [one.to(latents) for one in audio_tokens]
            placed = PlacedTokens.over(tokens, length, self.span or float(length), head_dim)
        places: Any = torch.arange(length + 1, device=latents.device)  # the global token is in front
        rotary = get_1d_rotary_pos_embed(head_dim // 2, places, use_real=True, repeat_interleave_real=False)
        return self.transformer(
            latents,
            times_at(times.to(self.times.device), self.times).to(latents.device, torch.float32),
            encoder_hidden_states=condition,
            global_hidden_states=torch.cat(time_tokens, dim=2),
            rotary_embedding=rotary,
            encoder_attention_mask=placed,
            return_dict=False,
        )[0]

    def adapted_layers(self) -> dict[str, AttentionLayer]:
        """The cross-attention of every block (24)."""
        return adapted_layers(self.transformer)

    def encoders(self) -> dict[str, nn.Module]:
        """The VAE and what encodes prompts."""
        return {name: getattr(self, name) for name in ("vae", "text_encoder", "projection_model")}

    def identity(self) -> dict[str, Any]:
        """The time code of new adapters; that of a trained one is a part of it."""
        return {"time_code": self.time_code}


def adapted_layers(transformer: Any) -> dict[str, AttentionLayer]:
    """The cross-attention layers of a ``StableAudioDiTModel``, by name."""
    return {f"transformer_blocks.{i}.attn2": block.attn2 for i, block in enumerate(transformer.transformer_blocks)}
