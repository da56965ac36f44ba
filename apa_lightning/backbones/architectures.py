"""AudioLDM2 folders with random weights, in the hub's own layout, from the real classes at any size.

``TINY`` is what tests use; ``POCKET`` has the sizes of the embedded default, which this project trains itself
(:mod:`apa_lightning.pocket`); ``AUDIOLDM2_LARGE`` has the published sizes.
"""

import json
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import torch
import transformers
import yaml
from diffusers import (
    AudioLDM2Pipeline,
    AudioLDM2ProjectionModel,
    AudioLDM2UNet2DConditionModel,
    AutoencoderKL,
    DDIMScheduler,
)
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from tokenizers import pre_tokenizers

from apa_lightning.adapters.base import AttentionLayer
from apa_lightning.backbones.audioldm2 import adapted_layers
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import frozen, no_progress_bars

Sizes = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """Configuration arguments of each part's class; what is not named keeps the class's default."""

    name: str
    unet: Sizes
    vae: Sizes
    vocoder: Sizes
    clap: Sizes
    t5: Sizes
    gpt2: Sizes
    audio_encoder: Sizes

    part: ClassVar[str] = "U-Net"

    def adapted_model(self, folder: Path | None = None) -> tuple[Any, dict[str, AttentionLayer]]:
        """See :func:`adapted_unet`: of these sizes, or of a folder's config files."""
        return adapted_unet(folder or self)

    def save_random(self, folder: Path, seed: int = 0) -> None:
        """See :func:`save_random_backbone`."""
        save_random_backbone(folder, self, seed)

    def build_unet(self) -> Any:
        """The U-Net with the two text streams at the widths of GPT-2 and T5."""
        streams = [None, self.gpt2["n_embd"], self.t5["d_model"], None]
        levels = len(self.unet["block_out_channels"])
        return AudioLDM2UNet2DConditionModel(cross_attention_dim=[streams] * levels, **self.unet)

    def build_vae(self) -> Any:
        """The VAE on log-mels of one channel, with 8 latent channels; every level but the last halves both axes."""
        levels = len(self.vae["block_out_channels"])
        blocks = {f"{way}_block_types": (f"{kind}Block2D",) * levels for way, kind in _VAE_BLOCKS.items()}
        return AutoencoderKL(**blocks, **self.vae)

    def build_clap(self, tokenizer: Any) -> transformers.ClapModel:
        """CLAP with the vocabulary of ``tokenizer``."""
        width = self.clap["projection_dim"]
        special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        text = {"vocab_size": len(tokenizer), "max_position_embeddings": 514, "projection_dim": width, **special}
        text |= self.clap["text_config"]
        audio = {"projection_dim": width, **self.clap["audio_config"]}
        config = transformers.ClapConfig(text_config=text, audio_config=audio, projection_dim=width)
        return transformers.ClapModel(config)

    def t5_config(self, tokenizer: Any) -> transformers.T5Config:
        """T5's configuration with the vocabulary of ``tokenizer``."""
        return transformers.T5Config(  # type: ignore[call-arg]
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            decoder_start_token_id=tokenizer.pad_token_id,
            **self.t5,
        )

    def build_projection(self) -> Any:
        """The projection of both text encoders to GPT-2's width."""
        return AudioLDM2ProjectionModel(self.clap["projection_dim"], self.t5["d_model"], self.gpt2["n_embd"])

    def build_gpt2(self) -> transformers.GPT2LMHeadModel:
        """The language model that generates eight LOA tokens."""
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(**self.gpt2))

    def build_vocoder(self) -> transformers.SpeechT5HifiGan:
        """The vocoder from 64-bin log-mels to 16 kHz, 160 samples a frame."""
        return transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**self.vocoder))

    def build_audio_encoder(self) -> VisionTransformer:
        """The ViT on filter banks of 128 bins that are as long as the U-Net's window, in patches of 16 x 16."""
        return build_audio_encoder(self.audio_encoder_sizes())

    def audio_encoder_sizes(self) -> Sizes:
        """Sizes of the ViT for ``config.json`` in timm's layout."""
        hop = 2 ** (len(self.vae["block_out_channels"]) - 1)
        return {"img_size": [self.unet["sample_size"] * hop, 128], "in_chans": 1, **self.audio_encoder}


_SIZES = yaml.safe_load(files(__package__).joinpath("architectures.yaml").read_text())
_SHARED: dict[str, Sizes] = _SIZES.pop("shared")
_VAE_BLOCKS = {"down": "DownEncoder", "up": "UpDecoder"}
ARCHITECTURES = {
    name: Architecture(name, **{part: {**_SHARED.get(part, {}), **own} for part, own in sizes.items()})
    for name, sizes in _SIZES.items()
}
TINY, POCKET, AUDIOLDM2_LARGE = (ARCHITECTURES[name] for name in ("tiny", "pocket", "audioldm2-large"))


def adapted_unet(source: Architecture | Path) -> tuple[Any, dict[str, AttentionLayer]]:
    """The U-Net of an architecture, or of an AudioLDM2 folder's config files, and its adapted layers by name.

    Raises:
        FileNotFoundError: If the folder holds no U-Net's configuration.
        InputError: If it does not contain the width of the language-of-audio stream.
    """
    if isinstance(source, Architecture):
        unet = source.build_unet()
        return unet, adapted_layers(unet, source.gpt2["n_embd"])
    if not (source / "unet" / "config.json").is_file():
        raise FileNotFoundError(f"folder: {source} holds no unet/config.json; give an AudioLDM2 folder.")
    config = AudioLDM2UNet2DConditionModel.load_config(source / "unet")
    language_model = source / "language_model" / "config.json"
    if language_model.is_file():
        try:
            width = json.loads(language_model.read_text())["n_embd"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"folder: {language_model} does not configure a GPT-2: it has no n_embd.") from None
    else:
        width = next(width for width in config["cross_attention_dim"][0] if width)
        print(f"{source} holds no language_model/config.json: the audio stream is taken to be the first, {width} wide.")
    unet = AudioLDM2UNet2DConditionModel.from_config(config)
    return unet, adapted_layers(unet, width)


def save_random_backbone(folder: Path, architecture: Architecture = TINY, seed: int = 0) -> None:
    """Write a randomly initialized AudioLDM2 folder, and next to its parts ``audio_encoder/`` in timm's layout."""
    with torch.random.fork_rng(devices=[]), no_progress_bars():
        torch.manual_seed(seed)
        random_pipeline(architecture).save_pretrained(folder)
        save_audio_encoder(
            architecture.build_audio_encoder(), folder / "audio_encoder", architecture.audio_encoder_sizes()
        )


def random_pipeline(architecture: Architecture) -> Any:
    """The pipeline with random weights from torch's global generator, and tokenizers over single characters."""
    tokenizer, tokenizer_2 = _clap_tokenizer(), t5_tokenizer()
    parts: dict[str, Any] = {
        "vae": architecture.build_vae(),
        "text_encoder": architecture.build_clap(tokenizer),
        "text_encoder_2": transformers.T5EncoderModel(architecture.t5_config(tokenizer_2)),
        "projection_model": architecture.build_projection(),
        "language_model": architecture.build_gpt2(),
        "unet": architecture.build_unet(),
        "vocoder": architecture.build_vocoder(),
    }
    return AudioLDM2Pipeline(
        **{name: frozen(part) for name, part in parts.items()},
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        feature_extractor=transformers.ClapFeatureExtractor(),
        scheduler=new_scheduler(),
    )


def new_scheduler() -> DDIMScheduler:
    """AudioLDM2's noise schedule."""
    return DDIMScheduler(**_SHARED["scheduler"])


def _clap_tokenizer() -> transformers.RobertaTokenizer:
    """CLAP's tokenizer class over single bytes."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "<mask>"]
    ids = {token: i for i, token in enumerate(vocabulary)}
    return transformers.RobertaTokenizer(vocab=ids, merges=[], model_max_length=512)


def t5_tokenizer() -> transformers.T5Tokenizer:
    """T5's tokenizer class over single characters."""
    characters = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()[]-_/&%#+*"
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), *((character, -4.0) for character in characters)]
    return transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=128)


def build_audio_encoder(sizes: Sizes) -> VisionTransformer:
    """The ViT of these sizes, in patches of 16 x 16."""
    layers = {"num_classes": 0, "global_pool": "", "norm_layer": partial(torch.nn.LayerNorm, eps=1e-6)}
    return VisionTransformer(**sizes, **layers, patch_size=16)  # type: ignore[arg-type]


def save_audio_encoder(encoder: VisionTransformer, folder: Path, sizes: Sizes) -> None:
    """Write ``encoder`` of these sizes in timm's layout: ``config.json`` and ``model.safetensors``."""
    folder.mkdir(parents=True)
    weights = {key: value.contiguous() for key, value in encoder.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    pretrained = {"tag": "audiomae", "input_size": [1, *sizes["img_size"]], "fixed_input_size": True, "num_classes": 0}
    pretrained |= {"first_conv": "patch_embed.proj", "classifier": "head"}
    config = {"architecture": "vit_base_patch16_224", "num_classes": 0, "num_features": sizes["embed_dim"]}
    config |= {"model_args": sizes, "pretrained_cfg": pretrained}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
