"""The frozen text-to-music model: every part of a diffusers AudioLDM2 folder behind one interface."""

import os
from collections.abc import Sequence
from math import prod
from typing import Any, Literal, get_args

import torch
from diffusers import AudioLDM2Pipeline, AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel, AutoencoderKL
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from transformers import ClapModel, GPT2LMHeadModel, SpeechT5HifiGan, T5EncoderModel

from apa_lightning.adapters.audio_prompt import AdapterError, AudioPromptAdapter
from apa_lightning.audio import MelSpec, fit_length, log_mel, normalize_level
from apa_lightning.audio.griffin_lim import griffin_lim
from apa_lightning.backbones.prompt_encoder import PromptEncoder
from apa_lightning.backbones.text_streams import TextStreams
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import (
    ADAPTER_FILE,
    EMBEDDED,
    LOADING_ERRORS,
    first_line,
    frozen,
    load_whole,
    no_progress_bars,
    only_errors,
    packaged,
    resolve_source,
)
from apa_lightning.utils.windows import blend_windows, window_starts, window_weights

#: The parts of AudioLDM2 that hold weights. Older folders say GPT2Model, which has lost the generation methods in
#: transformers 5.
PARTS = {
    "unet": AudioLDM2UNet2DConditionModel,
    "vae": AutoencoderKL,
    "vocoder": SpeechT5HifiGan,
    "text_encoder": ClapModel,
    "text_encoder_2": T5EncoderModel,
    "projection_model": AudioLDM2ProjectionModel,
    "language_model": GPT2LMHeadModel,
}
Vocoder = Literal["backbone", "refined", "griffin_lim"]
REFINEMENTS = 12
"""Iterations of Griffin-Lim on a vocoder's sound."""


class AudioLDM2Backbone(nn.Module):
    """AudioLDM2's parts, frozen and in eval mode; every size is read from the parts.

    Args:
        pipeline: a loaded ``AudioLDM2Pipeline`` whose language model is a ``GPT2LMHeadModel``.
        name: shown in adapter files and results.
        vocoder_choice: what makes sound of decoded log-mels: the ``backbone``'s own vocoder; the same ``refined``, its phases
            and fine structure kept and each mel band's level put right by a few iterations of Griffin-Lim, which helps a
            small vocoder; or ``griffin_lim`` alone, from random phases. The latter two run on the CPU. ``None`` means what
            the vocoder's own ``config.json`` names as ``vocoder_choice`` (the pocket's: ``refined``), else ``backbone``.
    """

    # AudioLDM2UNet2DConditionModel, AutoencoderKL, SpeechT5HifiGan, GPT2LMHeadModel: diffusers' are untyped
    unet: Any
    vae: Any
    vocoder: Any
    language_model: Any

    def __init__(self, pipeline: Any, name: str = "custom", vocoder_choice: Vocoder | None = None):
        super().__init__()
        chosen: Any = vocoder_choice
        if vocoder_choice is None:
            chosen = getattr(pipeline.vocoder.config, "vocoder_choice", "backbone")
        if chosen not in get_args(Vocoder):
            raise InputError(f"vocoder: {chosen!r} is unknown; choose from {', '.join(get_args(Vocoder))}.")
        self.vocoder_choice: Vocoder = chosen
        for part in PARTS:
            self.add_module(part, frozen(getattr(pipeline, part)))
        if pipeline.scheduler.config.prediction_type != "epsilon":
            raise InputError(
                f"backbone: {name} predicts {pipeline.scheduler.config.prediction_type!r}; epsilon prediction is needed."
            )
        self.pipeline = pipeline
        self.scheduler = pipeline.scheduler
        self.feature_extractor = pipeline.feature_extractor
        self.name = name
        self._prompt_encoder = PromptEncoder(pipeline)
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike = "embedded",
        dtype: torch.dtype = torch.float32,
        vocoder: Vocoder | None = None,
    ) -> "AudioLDM2Backbone":
        """Load any diffusers AudioLDM2 folder or hub id.

        Args:
            source: ``embedded`` (the pocket that comes with the package), a folder in the hub's layout, or a hub id such as
                ``cvssp/audioldm2-large``.
            dtype: of the frozen weights.
            vocoder: ``backbone``, ``refined`` or ``griffin_lim``; ``None``: as the backbone's vocoder names itself.

        Raises:
            FileNotFoundError, InputError: no such source, no network for a hub id that is not cached, or not AudioLDM2.
        """
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise InputError(f"dtype: {dtype!r}; give torch.float32, torch.bfloat16 or torch.float16.")
        path = resolve_source(source, "backbone", AudioLDM2Pipeline.download)
        if not (path / "model_index.json").is_file():
            raise FileNotFoundError(f"backbone: {path} holds no model_index.json; give a diffusers AudioLDM2 folder.")
        try:
            with no_progress_bars():
                parts = {part: load_whole(kind, path, part, dtype=dtype) for part, kind in PARTS.items()}
                with only_errors():  # it shows whole modules that it is given
                    pipeline = AudioLDM2Pipeline.from_pretrained(path, **parts, dtype=dtype)
        except LOADING_ERRORS as error:
            raise InputError(f"backbone: {source} cannot be loaded as AudioLDM2: {first_line(error)}") from error
        return cls(pipeline, str(source), vocoder)

    # --- sizes ------------------------------------------------------------------------------------------------------

    @property
    def mel_spec(self) -> MelSpec:
        """Geometry of the log-mel that the VAE reads and the vocoder writes from."""
        config = self.vocoder.config
        return MelSpec(
            sample_rate=config.sampling_rate,
            hop_length=prod(config.upsample_rates),
            num_mels=config.model_in_dim,
            f_max=min(8_000.0, config.sampling_rate / 2),
        )

    @property
    def sample_rate(self) -> int:
        """Hz of the waveforms that go in and come out."""
        return self.vocoder.config.sampling_rate

    @property
    def compression(self) -> int:
        """Mel frames (and bins) per latent frame."""
        return self.pipeline.vae_scale_factor

    @property
    def hop_samples(self) -> int:
        """Audio samples per latent frame."""
        return self.mel_spec.hop_length * self.compression

    @property
    def window_frames(self) -> int:
        """Latent frames of the window that the U-Net was trained on (256 for AudioLDM2-large)."""
        size = self.unet.config.sample_size
        return size if isinstance(size, int) else size[0]

    @property
    def window_samples(self) -> int:
        """Audio samples of one window."""
        return self.window_frames * self.hop_samples

    @property
    def window_seconds(self) -> float:
        """Seconds of one window (10.24 for AudioLDM2-large)."""
        return self.window_samples / self.sample_rate

    @property
    def stream_width(self) -> int:
        """Channels of the language-of-audio stream: GPT-2's width (768 for AudioLDM2-large)."""
        return self.language_model.config.n_embd

    @property
    def device(self) -> torch.device:
        return self.unet.device

    @property
    def dtype(self) -> torch.dtype:
        return self.unet.dtype

    def latent_shape(self, frames: int | None = None) -> tuple[int, int, int]:
        """(C, T, F) of the latents of ``frames`` latent frames, by default of one window."""
        return self.vae.config.latent_channels, frames or self.window_frames, self.mel_spec.num_mels // self.compression

    def train(self, mode: bool = True) -> "AudioLDM2Backbone":
        """The backbone is always in eval mode."""
        return super().train(False)

    def new_adapter(self, path: str | os.PathLike | None = None) -> AudioPromptAdapter:
        """An adapter for this backbone: untrained, or loaded from ``path``; ``embedded`` is the one of the embedded backbone.

        Raises:
            FileNotFoundError, AdapterError: see :meth:`AudioPromptAdapter.load`.
        """
        adapter = AudioPromptAdapter(self.unet, self.stream_width)
        if path is None or str(path) != EMBEDDED:
            return adapter if path is None else adapter.load(path)
        try:
            return adapter.load(packaged() / ADAPTER_FILE)
        except AdapterError as error:
            if self.name == EMBEDDED:
                raise
            raise AdapterError(
                f"adapter: 'embedded' was trained on the embedded backbone, whose weights differ from those of {self.name}. "
                "Give the file of an adapter that was trained on it, or null for an untrained one."
            ) from error

    def check_audio_encoder(self, embed_dim: int, window_seconds: float) -> None:
        """Raise :class:`InputError` unless audio tokens of ``embed_dim`` channels fit the language-of-audio stream, and the
        encoder hears the whole window."""
        if embed_dim != self.stream_width:
            raise InputError(
                f"audio_encoder: its tokens have {embed_dim} channels, the backbone's language-of-audio stream has "
                f"{self.stream_width}. Give the audio encoder that belongs to the backbone."
            )
        if window_seconds < self.window_seconds - 0.05:
            raise InputError(
                f"audio_encoder: hears {window_seconds:.2f} s, the backbone's window has {self.window_seconds:.2f} s. "
                "Give the audio encoder that belongs to the backbone."
            )

    def compile_unet(self) -> None:
        """Compile the U-Net's repeated transformer blocks (regional compilation: one short compile serves all)."""
        for module in self.unet.modules():
            if isinstance(module, BasicTransformerBlock):
                module.compile()

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the U-Net's transformers in the backward pass: less memory, more time.

        The U-Net's own blocks are left out: diffusers 0.42 hands their transformers the arguments one place off when it
        checkpoints them, so that the text mask arrives as a self-attention mask.
        """
        self.unet.enable_gradient_checkpointing()
        for module in self.unet.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = isinstance(module, Transformer2DModel)

    # --- text -------------------------------------------------------------------------------------------------------

    def encode_text(self, prompts: Sequence[str]) -> TextStreams:
        """Both text streams of ``prompts``; an empty prompt means unconditional. See :class:`PromptEncoder`.

        Raises:
            InputError: a prompt is no string.
        """
        return self._prompt_encoder(prompts, self.device)

    # --- audio ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_moments(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, C, T, F) of the scaled latents of a mono waveform (B, S).

        A waveform longer than the window is encoded in overlapping windows that are cross-faded.

        Args:
            lengths: samples of each item that are no padding; level and offset are measured on them.
        """
        levelled = normalize_level(waveform, lengths=lengths)
        length, window = waveform.shape[-1] // self.hop_samples, self.window_frames
        if length <= window:
            return self._window_moments(levelled)
        starts = window_starts(length, window, window // 4)
        weights = window_weights(length, window, starts)
        windows = [levelled[:, start * self.hop_samples :][:, : self.window_samples] for start in starts]
        moments = zip(*map(self._window_moments, windows), strict=True)
        mean, std = (blend_windows(torch.stack(parts), starts, weights, length) for parts in moments)
        return mean, std

    def _window_moments(self, levelled: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.vae.encode(log_mel(levelled, self.mel_spec).to(self.vae.dtype)).latent_dist
        factor = self.vae.config.scaling_factor
        return posterior.mean * factor, posterior.std * factor

    def encode_audio(
        self, waveform: Tensor, noise: Tensor | None = None, lengths: Sequence[int] | None = None
    ) -> Tensor:
        """Latents (B, C, T, F) of a waveform (B, S): a posterior sample with standard normal ``noise``, or the mean."""
        mean, std = self.encode_moments(waveform, lengths)
        return mean if noise is None else mean + std * noise

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Waveform (B, T * hop_samples) of latents (B, C, T, F), through VAE decoder and vocoder; long ones in windows."""
        length, window = latents.shape[2], self.window_frames
        starts = window_starts(length, window, window // 4)
        weights = window_weights(length, window, starts).repeat_interleave(self.compression, dim=1)
        factor = self.vae.config.scaling_factor
        mels = torch.stack(
            [self.vae.decode(latents[:, :, s : s + window].to(self.vae.dtype) / factor).sample for s in starts]
        )
        mel = blend_windows(mels, [s * self.compression for s in starts], weights, length * self.compression)
        return self._sound(mel.squeeze(1))

    def _sound(self, mel: Tensor) -> Tensor:
        """Log-mel (B, T, F) -> waveform (B, T * hop), as :attr:`vocoder_choice` says."""
        if self.vocoder_choice == "griffin_lim":
            return griffin_lim(mel, self.mel_spec).to(mel.device)
        waveform = self._vocode(mel)
        if self.vocoder_choice == "refined":
            return griffin_lim(mel, self.mel_spec, REFINEMENTS, start=waveform).to(mel.device)
        return waveform

    def _vocode(self, mel: Tensor, context: int = 96) -> Tensor:
        """Log-mel (B, T, F) -> waveform (B, T * hop); long mels in pieces with ``context`` frames on both sides."""
        piece, hop, length = self.window_frames * self.compression, self.mel_spec.hop_length, mel.shape[1]
        if length <= piece + 2 * context:
            return fit_length(self.vocoder(mel).float(), length * hop)
        parts = []
        for start in range(0, length, piece):
            left = max(0, start - context)
            part = fit_length(
                self.vocoder(mel[:, left : start + piece + context]).float(),
                (min(start + piece + context, length) - left) * hop,
            )
            parts.append(part[:, (start - left) * hop : (min(start + piece, length) - left) * hop])
        return torch.cat(parts, dim=1)

    # --- diffusion --------------------------------------------------------------------------------------------------

    def predict_noise(
        self, latents: Tensor, timesteps: Tensor, text: TextStreams, loa: Sequence[Tensor] = ()
    ) -> Tensor:
        """The U-Net's epsilon(z_t, t, c_x, c_y).

        Args:
            latents: noisy latents (B, C, T, F).
            timesteps: (B,) or a scalar tensor.
            text: both text streams of B prompts.
            loa: pooled audio-prompt tokens (B, N, D), one tensor per installed adapter; empty means text only.

        Returns:
            noise prediction (B, C, T, F).
        """
        generated = text.generated.to(latents.dtype)
        stream = (generated, [tokens.to(latents.dtype) for tokens in loa]) if loa else generated
        return self.unet(
            latents,
            timesteps,
            encoder_hidden_states=stream,
            encoder_hidden_states_1=text.encoded.to(latents.dtype),
            encoder_attention_mask_1=text.mask,
            return_dict=False,
        )[0]
