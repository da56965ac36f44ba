"""AudioMAE: the frozen ViT that encodes the audio prompt (Masked Autoencoders that Listen, arXiv 2207.06405), through timm."""

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn

from apa_lightning.audio import fbank, resample
from apa_lightning.conditioning.base import AudioConditioner
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import LOADING_ERRORS, first_line, frozen, read_weights, resolve_source

SAMPLE_RATE = 16_000
LoaLayers = Literal["last", "mean_last_three"]
# What a pretraining checkpoint holds in addition to the encoder: the decoder and its mask token.
DECODER_KEYS = re.compile(r"decoder|mask_token")


class AudioMAE(AudioConditioner):
    """Frozen encoder from a waveform to the *unpooled* grid of language-of-audio (LOA) tokens.

    Args:
        encoder: a timm ``VisionTransformer`` with a class token, on (1, T, F) filter banks.
        loa_layers: ``last`` (AP-Adapter: the last block after the final norm) or ``mean_last_three`` (AudioLDM2's own
            LOA: the mean of the last three blocks, each after the final norm).
    """

    encoder: Any  # VisionTransformer: timm's optional parts make its attributes hard to type

    def __init__(self, encoder: Any, loa_layers: LoaLayers = "last"):
        super().__init__()
        if loa_layers not in ("last", "mean_last_three"):
            raise InputError(f"loa_layers: {loa_layers!r} is unknown; choose 'last' or 'mean_last_three'.")
        self.encoder = frozen(encoder)
        self.loa_layers = loa_layers
        self.eval()

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike = "embedded", loa_layers: LoaLayers = "last", num_heads: int | None = None
    ):
        """Load weights from ``source``.

        Args:
            source: ``embedded``; a folder in timm's layout (``config.json`` and weights); a weights file (``.pth``,
                ``.bin``, ``.safetensors``) with timm's names or the published ``pretrained.pth``'s ``model.`` names; or
                a hub id such as ``gaunernst/vit_base_patch16_1024_128.audiomae_as2m``.
            loa_layers: See the class.
            num_heads: Attention heads of a weights *file*, which does not say; by default one per 64 channels, as in ViT-B.

        Raises:
            FileNotFoundError: If there is no such source.
            InputError: If the weights are unreadable or do not match, by name.
        """
        path = resolve_source(source, "audio_encoder", _download, part="audio_encoder")
        if path.is_file():
            return cls(_from_state_dict(_encoder_weights(path), num_heads, path), loa_layers)
        if not (path / "config.json").is_file():
            raise FileNotFoundError(
                f"audio_encoder: {path} holds no config.json; give a folder in timm's layout, or a weights file."
            )
        from timm import create_model  # when weights are loaded: it takes seconds

        try:
            encoder = create_model(f"local-dir:{path}", pretrained=True, num_classes=0, global_pool="")
        except LOADING_ERRORS as error:
            why = first_line(error) if isinstance(error, UnpicklingError) else " ".join(str(error).split())[:400]
            raise InputError(f"audio_encoder: {source} cannot be loaded by timm: {why}") from error
        return cls(encoder, loa_layers)

    @property
    def embed_dim(self) -> int:  # type: ignore[override]
        """Width D of a token."""
        return self.encoder.embed_dim

    @property
    def input_size(self) -> tuple[int, int]:
        """Filter-bank frames and bins (T, F) that the encoder reads: (1024, 128) for AudioMAE."""
        return tuple(self.encoder.patch_embed.img_size)

    @property
    def window_seconds(self) -> float:  # type: ignore[override]
        """Seconds that are encoded (10.24 for AudioMAE); filter-bank frames are 10 ms apart."""
        return self.input_size[0] * 0.01

    @property
    def grid_size(self) -> tuple[int, int]:
        """Tokens along time and frequency: (64, 8) for AudioMAE."""
        return tuple(self.encoder.patch_embed.grid_size)

    def conventions(self) -> dict[str, str]:
        """Which layers the tokens are taken from."""
        return {"loa_layers": self.loa_layers}

    def encode_fbank(self, banks: Tensor) -> Tensor:
        """Filter banks (B, 1, T, F) -> every token of the sequence (B, 1 + N, D), the class token first."""
        if self.loa_layers == "last":
            return self.encoder.forward_features(banks)
        blocks = self.encoder.forward_intermediates(
            banks, indices=3, norm=True, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
        )
        return torch.stack([torch.cat([prefix, tokens], dim=1) for tokens, prefix in blocks]).mean(dim=0)

    def _grid(self, banks: Tensor) -> Tensor:
        tokens = self.encode_fbank(banks.to(self.encoder.pos_embed))[:, self.encoder.num_prefix_tokens :]
        return tokens.unflatten(1, self.grid_size)

    @torch.no_grad()
    def forward(self, waveform: Tensor, sample_rate: int = SAMPLE_RATE, lengths: Sequence[int] | None = None) -> Tensor:
        """Mono (B, S), level untouched -> unpooled grid (B, 64, 8, D); longer input is cut, shorter padded.

        Args:
            waveform: One window.
            sample_rate: Of ``waveform``; another than 16 kHz is resampled.
            lengths: Samples of each item that are not padding.
        """
        if sample_rate != SAMPLE_RATE:
            waveform = resample(waveform, sample_rate, SAMPLE_RATE)
            lengths = lengths and [round(length * SAMPLE_RATE / sample_rate) for length in lengths]
        frames, bins = self.input_size
        return self._grid(fbank(waveform, frames, bins, SAMPLE_RATE, lengths))

    @torch.no_grad()
    def null(self) -> Tensor:
        """The grid (1, 64, 8, D) of an all-zero filter bank: the published code's stand-in for "no audio prompt"."""
        return self._grid(torch.zeros(1, 1, *self.input_size, device=self.encoder.pos_embed.device))


def load_conditioner(
    source: str | os.PathLike | AudioConditioner, loa_layers: LoaLayers | None = None
) -> AudioConditioner:
    """Load an audio encoder: an AudioMAE by a short string (see :meth:`AudioMAE.from_pretrained`), or the given object.

    Raises:
        FileNotFoundError, InputError: If the source cannot be used, or ``loa_layers`` is given for an object.
    """
    if not isinstance(source, AudioConditioner):
        return AudioMAE.from_pretrained(source, loa_layers or "last")
    if loa_layers is not None and "loa_layers" not in source.conventions():
        raise InputError(f"loa_layers: {loa_layers} belongs to AudioMAE, not to {type(source).__name__}; leave it out.")
    source.load_weights()
    return source


def _download(name: str) -> str:
    from huggingface_hub import snapshot_download

    return snapshot_download(name, allow_patterns=["config.json", "model.safetensors", "pytorch_model.bin"])


def _encoder_weights(path: Path) -> dict[str, Tensor]:
    weights = {key.removeprefix("model."): value for key, value in read_weights(path, "audio_encoder").items()}
    return {key: value for key, value in weights.items() if not DECODER_KEYS.match(key)}


def _from_state_dict(weights: dict[str, Tensor], num_heads: int | None, path: Path) -> Any:
    """Build the timm ViT whose sizes ``weights`` show, and load them strictly."""
    from timm.models.vision_transformer import VisionTransformer

    try:
        _, tokens, width = weights["pos_embed"].shape
        _, channels, patch, _ = weights["patch_embed.proj.weight"].shape
        depth = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("blocks."))
    except (LookupError, ValueError):
        raise InputError(
            f"audio_encoder: {path} holds no AudioMAE encoder (pos_embed, patch_embed.proj.weight, blocks)."
        ) from None
    bins = 128
    encoder = VisionTransformer(
        img_size=((tokens - 1) * patch // (bins // patch), bins),
        patch_size=patch,
        in_chans=channels,
        num_classes=0,
        global_pool="",
        embed_dim=width,
        depth=depth,
        num_heads=num_heads or max(1, width // 64),
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
    )
    try:
        encoder.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"audio_encoder: {path} does not match AudioMAE: {error}") from None
    return encoder
