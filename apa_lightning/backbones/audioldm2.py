"""AudioLDM2 (arXiv 2308.05734): every part of a diffusers folder behind the :class:`Backbone` interface."""

import os
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AudioLDM2Pipeline, AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel, AutoencoderKL
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn
from transformers import ClapModel, GPT2LMHeadModel, SpeechT5HifiGan, T5EncoderModel

from apa_lightning.adapters.attention import with_audio_tokens
from apa_lightning.adapters.base import AdapterError, AttentionLayer
from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.backbones.base import Clap
from apa_lightning.backbones.diffusion import DiffusionBackbone
from apa_lightning.backbones.factory import stored_defaults
from apa_lightning.backbones.openvino_unet import OpenVINOUNet
from apa_lightning.backbones.prompt_encoder import PromptEncoder, TextStreams
from apa_lightning.backbones.vocoding import Vocoder, chosen_vocoder, mel_spec_of, sound_of
from apa_lightning.diffusion.objectives import Model
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


def adapted_layers(unet: nn.Module, stream_width: int) -> dict[str, AttentionLayer]:
    """The ``attn2`` layers of ``unet`` whose K/V input is the language-of-audio stream.

    Args:
        unet: Of AudioLDM2, whose cross-attention layers read one of two text streams.
        stream_width: Channels of the language-of-audio stream.

    Raises:
        AdapterError: If there are none, or if the second text stream has the same width, so that they cannot be told apart.
    """
    layers: dict[str, Any] = {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and name.endswith("attn2") and module.is_cross_attention
    }
    found = {name: module for name, module in layers.items() if module.to_k.in_features == stream_width}
    if not found:
        raise AdapterError(f"backbone: no cross-attention layer of the U-Net reads {stream_width} channels.")
    if len(found) == len(layers):
        raise AdapterError(
            f"backbone: every cross-attention layer reads {stream_width} channels; the audio stream and the "
            "text stream must have different widths to be told apart."
        )
    return found


class AudioLDM2Backbone(DiffusionBackbone):
    """AudioLDM2's parts, frozen and in eval mode; every size is read from the parts. Latents are (B, C, T, F).

    Args:
        pipeline: A loaded ``AudioLDM2Pipeline`` whose language model is a ``GPT2LMHeadModel``.
        name: Shown in adapter files and results.
        vocoder_choice: What turns decoded log-mels into sound: the ``backbone``'s own vocoder; the same ``refined``, its
            phases and fine structure kept and each mel band's level corrected by a few iterations of Griffin-Lim, which
            helps a small vocoder; or ``griffin_lim`` alone, from random phases. The latter two run on the CPU. ``None``
            means what the vocoder's own ``config.json`` names as ``vocoder_choice`` (the pocket's: ``refined``), else
            ``backbone``.
    """

    kind = "audioldm2"
    # AudioLDM2UNet2DConditionModel, AutoencoderKL, SpeechT5HifiGan, GPT2LMHeadModel: diffusers' are untyped
    unet: Any
    vae: Any
    vocoder: Any
    language_model: Any
    _prompt_encoder: PromptEncoder

    def __init__(self, pipeline: Any, name: str = "custom", vocoder_choice: Vocoder | None = None):
        super().__init__()
        self.vocoder_choice = chosen_vocoder(vocoder_choice, pipeline.vocoder)
        for part in PARTS:
            self.add_module(part, frozen(getattr(pipeline, part)))
        self.scheduler = pipeline.scheduler
        if not hasattr(self.scheduler, "alphas_cumprod"):
            raise InputError(
                f"backbone: the scheduler of {name} is {type(self.scheduler).__name__}, which does not say how much noise the "
                "timesteps of the model have. Give the folder the DDIMScheduler of AudioLDM2."
            )
        if self.scheduler.config.prediction_type != "epsilon":
            raise InputError(
                f"backbone: {name} predicts {self.scheduler.config.prediction_type!r}; epsilon prediction is needed."
            )
        self.pipeline = pipeline
        self.name = name
        self._prompt_encoder = PromptEncoder(
            self._encode_prompts, {"CLAP": pipeline.tokenizer, "T5": pipeline.tokenizer_2}
        )
        self._openvino_unet = OpenVINOUNet(self.unet)
        self.eval()

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike = "embedded",
        dtype: torch.dtype = torch.float32,
        vocoder: Vocoder | None = None,
        name: str | None = None,
    ) -> "AudioLDM2Backbone":
        """Load a diffusers AudioLDM2 folder or hub id. An ``edit_defaults.yaml`` in it is :attr:`Backbone.edit_defaults`.

        Args:
            source: ``embedded`` (the pocket that comes with the package), a folder in the hub's layout, or a hub id such as
                ``cvssp/audioldm2-large``.
            dtype: Of the frozen weights.
            vocoder: See ``vocoder_choice`` of the class.
            name: Shown in adapter files and results; ``None`` means ``source``.

        Raises:
            FileNotFoundError: If there is no such source.
            InputError: If the hub cannot be read, or the folder is not AudioLDM2 or is damaged.
        """
        check_dtype(dtype)
        path = resolve_pipeline(source)
        try:
            with no_progress_bars():
                parts = {part: load_whole(kind, path, part, dtype=dtype) for part, kind in PARTS.items()}
                with only_errors():  # it warns of whole modules that it is given
                    pipeline = AudioLDM2Pipeline.from_pretrained(path, **parts, dtype=dtype)
        except LOADING_ERRORS as error:
            raise InputError(f"backbone: {source} cannot be loaded as AudioLDM2: {first_line(error)}") from error
        backbone = cls(pipeline, name or str(source), vocoder)
        backbone.edit_defaults = stored_defaults(path)
        return backbone

    # --- sizes ------------------------------------------------------------------------------------------------------

    @property
    def mel_spec(self) -> MelSpec:
        """Geometry of the log-mel that the VAE reads and the vocoder writes from."""
        return mel_spec_of(self.vocoder)

    @property
    def sample_rate(self) -> int:  # type: ignore[override]
        """Hz of the waveforms that go in and come out."""
        return self.vocoder.config.sampling_rate

    @property
    def compression(self) -> int:
        """Mel frames (and bins) per latent frame."""
        return self.pipeline.vae_scale_factor

    @property
    def hop_samples(self) -> int:  # type: ignore[override]
        """Audio samples per latent frame."""
        return self.mel_spec.hop_length * self.compression

    @property
    def window_frames(self) -> int:  # type: ignore[override]
        """Latent frames of the window that the U-Net was trained on (256 for AudioLDM2-large)."""
        size = self.unet.config.sample_size
        return size if isinstance(size, int) else size[0]

    @property
    def stream_width(self) -> int:
        """Channels of the language-of-audio stream: GPT-2's width (768 for AudioLDM2-large)."""
        return self.language_model.config.n_embd

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where the U-Net is."""
        return self.unet.conv_in.weight.device  # diffusers' own property walks through all modules

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Precision of the U-Net."""
        return self.unet.conv_in.weight.dtype

    def latent_shape(self, frames: int | None = None) -> tuple[int, int, int]:
        """(C, T, F) of the latents of ``frames`` latent frames, by default of one window."""
        return self.vae.config.latent_channels, frames or self.window_frames, self.mel_spec.num_mels // self.compression

    def compile_blocks(self) -> None:
        """Compile the U-Net's repeated transformer blocks (regional compilation: one short compile serves all of them)."""
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
            InputError: If a prompt is not a string.
        """
        return TextStreams.stack(self._prompt_encoder(prompts, self.device))

    def _encode_prompts(self, prompts: list[str], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """GPT-2's tokens, T5's states and their mask, of prompts of as many tokens."""
        encoded, mask, generated = self.pipeline.encode_prompt(prompts, device, 1, do_classifier_free_guidance=False)
        return generated, encoded, mask

    # --- audio ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_moments(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, C, T, F) of the scaled latents of a mono waveform (B, S).

        A waveform longer than the window is encoded in overlapping windows that are cross-faded.

        Args:
            waveform: At :attr:`sample_rate`.
            lengths: Samples of each item that are not padding; level and offset are measured on them.
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
        return sound_of(mel.squeeze(1), self.vocoder, self.vocoder_choice, window * self.compression)

    # --- diffusion --------------------------------------------------------------------------------------------------

    def predict(self, latents: Tensor, times: Tensor, text: TextStreams, audio_tokens: Sequence[Tensor] = ()) -> Tensor:
        """The U-Net's epsilon(z_t, t, c_x, c_y), see :meth:`DiffusionBackbone.predict`."""
        latents = latents.to(self.dtype)
        return self.unet(
            latents,
            times,
            encoder_hidden_states=with_audio_tokens(text.generated.to(latents.dtype), audio_tokens),
            encoder_hidden_states_1=text.encoded.to(latents.dtype),
            encoder_attention_mask_1=text.mask,
            return_dict=False,
        )[0]

    def predictor(self, text: TextStreams, audio_tokens: Sequence[Tensor] = ()) -> Model:
        """:meth:`predict` for many calls under the same conditions, by OpenVINO where it can be used."""
        torchs = super().predictor(text, audio_tokens)
        if torch.is_grad_enabled():  # as in training
            return torchs
        return self._openvino_unet.predictor(torchs, text, audio_tokens, self.adapted_layers())

    def adapted_layers(self) -> dict[str, AttentionLayer]:
        """The layers that read the language-of-audio stream (32 on AudioLDM2-large)."""
        return adapted_layers(self.unet, self.stream_width)

    # --- what an edit's result depends on, and is scored by -----------------------------------------------------------

    def encoders(self) -> dict[str, nn.Module]:
        """The VAE and what encodes prompts."""
        names = ("vae", "text_encoder", "text_encoder_2", "projection_model", "language_model")
        return {name: getattr(self, name) for name in names}

    def clap(self) -> Clap:
        """The CLAP that prompts are read with."""
        return Clap(self.pipeline.text_encoder, self.pipeline.feature_extractor, self.pipeline.tokenizer)

    def identity(self) -> dict[str, Any]:
        """What turns decoded log-mels into sound."""
        return {"vocoder": self.vocoder_choice}
