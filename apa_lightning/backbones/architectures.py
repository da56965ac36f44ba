"""AudioLDM2 folders with random weights, in the hub's own layout, from the real classes at any size.

``TINY`` is what tests use; ``POCKET`` has the sizes of the embedded default, which this project trains itself
(:mod:`apa_lightning.pocket`); ``AUDIOLDM2_LARGE`` has the published sizes (REFERENCE).
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
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

    def build_unet(self) -> Any:
        """The U-Net with the two text streams at the widths of GPT-2 and T5."""
        streams = [None, self.gpt2["n_embd"], self.t5["d_model"], None]
        return AudioLDM2UNet2DConditionModel(
            in_channels=8,
            out_channels=8,
            cross_attention_dim=[streams] * len(self.unet["block_out_channels"]),
            **self.unet,
        )

    def build_vae(self) -> Any:
        """The VAE on log-mels of one channel, with 8 latent channels; every level but the last halves both axes."""
        levels = len(self.vae["block_out_channels"])
        return AutoencoderKL(
            in_channels=1,
            out_channels=1,
            latent_channels=8,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            **{"scaling_factor": 0.4, **self.vae},
        )

    def build_clap(self, tokenizer: Any) -> transformers.ClapModel:
        """CLAP with the vocabulary of ``tokenizer``."""
        width = self.clap["projection_dim"]
        special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
        text = {"vocab_size": len(tokenizer), "max_position_embeddings": 514, "projection_dim": width, **special}
        return transformers.ClapModel(
            transformers.ClapConfig(
                text_config={**text, **self.clap["text_config"]},
                audio_config={"projection_dim": width, **self.clap["audio_config"]},
                projection_dim=width,
            )
        )

    def t5_config(self, tokenizer: Any) -> transformers.T5Config:
        """T5's configuration with the vocabulary of ``tokenizer``."""
        return transformers.T5Config(  # type: ignore[call-arg]
            vocab_size=len(tokenizer),
            feed_forward_proj="gated-gelu",
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
        config = transformers.GPT2Config(max_new_tokens=8, bos_token_id=0, eos_token_id=0, **self.gpt2)  # type: ignore[call-arg]
        return transformers.GPT2LMHeadModel(config)

    def build_vocoder(self) -> transformers.SpeechT5HifiGan:
        """The vocoder from 64-bin log-mels to 16 kHz, 160 samples a frame."""
        sizes = {
            "model_in_dim": 64,
            "sampling_rate": 16_000,
            "upsample_rates": [5, 4, 2, 2, 2],
            "upsample_kernel_sizes": [16, 16, 8, 4, 4],
            "normalize_before": False,
            **self.vocoder,
        }
        return transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**sizes))

    def build_audio_encoder(self) -> VisionTransformer:
        """The ViT on filter banks of 128 bins that are as long as the U-Net's window, in patches of 16 x 16."""
        return VisionTransformer(**self.audio_encoder_sizes(), **_VIT)

    def audio_encoder_sizes(self) -> Sizes:
        """What ``config.json`` says of the ViT in timm's layout."""
        hop = 2 ** (len(self.vae["block_out_channels"]) - 1)
        return {"img_size": [self.unet["sample_size"] * hop, 128], "in_chans": 1, **self.audio_encoder}


_VIT: Sizes = {
    "patch_size": 16,
    "num_classes": 0,
    "global_pool": "",
    "norm_layer": partial(torch.nn.LayerNorm, eps=1e-6),
}


TINY = Architecture(
    name="tiny",
    # Attention on the lowest of three levels alone: 64 x 4 positions instead of 128 x 8 make a step eight times faster.
    unet={
        "sample_size": 256,
        "block_out_channels": (16, 16, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 2,
        "transformer_layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    },
    vae={
        "block_out_channels": (8, 16, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "mid_block_add_attention": False,
    },
    vocoder={
        "upsample_initial_channel": 32,
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3]],
        "initializer_range": 0.2,
    },  # the default of 0.01 would be silent
    clap={
        "projection_dim": 24,
        "text_config": {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 24, "intermediate_size": 32},
        "audio_config": {
            "patch_embeds_hidden_size": 8,
            "hidden_size": 16,
            "depths": [1, 1],
            "num_attention_heads": [1, 2],
            "num_hidden_layers": 2,
        },
    },
    t5={"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2},
    gpt2={"n_embd": 48, "n_layer": 1, "n_head": 2, "vocab_size": 64},
    audio_encoder={"embed_dim": 48, "depth": 4, "num_heads": 4},
)

POCKET = Architecture(
    name="pocket",
    # A window of 5.12 s: latents of 128 x 16.
    unet={
        "sample_size": 128,
        "block_out_channels": (32, 48, 96, 96),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": (2, 3, 4, 4),
        "transformer_layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    },
    vae={
        "block_out_channels": (16, 32, 64),
        "norm_num_groups": 8,
        "layers_per_block": 1,
        "mid_block_add_attention": False,
    },
    # The first layers work at the mel's own rate, where one second of context costs little: a tone must keep its phase
    # from frame to frame, and a generator that sees a tenth of a second hums at 100 Hz instead.
    vocoder={
        "upsample_initial_channel": 256,
        "upsample_rates": [1, 5, 4, 8],
        "upsample_kernel_sizes": [7, 15, 12, 16],
        "resblock_kernel_sizes": [7],
        "resblock_dilation_sizes": [[1, 3, 9]],
    },
    clap={
        "projection_dim": 128,
        "text_config": {
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "hidden_size": 128,
            "intermediate_size": 384,
            "max_position_embeddings": 130,
        },
        # 256 frames of 20 ms x 64 bins, folded into a square of 128 x 128.
        "audio_config": {
            "spec_size": 128,
            "patch_embeds_hidden_size": 32,
            "hidden_size": 128,
            "depths": [2, 2, 2],
            "num_attention_heads": [2, 4, 8],
            "num_hidden_layers": 3,
        },
    },
    t5={"d_model": 128, "d_kv": 32, "d_ff": 320, "num_layers": 3, "num_heads": 4},
    gpt2={"n_embd": 160, "n_layer": 3, "n_head": 5, "vocab_size": 8, "n_positions": 192},
    audio_encoder={"embed_dim": 160, "depth": 5, "num_heads": 5},
)

AUDIOLDM2_LARGE = Architecture(
    name="audioldm2-large",
    unet={
        "sample_size": 256,
        "block_out_channels": (128, 256, 384, 640),
        "layers_per_block": 2,
        "attention_head_dim": (4, 8, 12, 20),
        "transformer_layers_per_block": 2,
        "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 3),
        "up_block_types": (*("CrossAttnUpBlock2D",) * 3, "UpBlock2D"),
    },
    vae={"block_out_channels": (128, 256, 512), "layers_per_block": 2},
    vocoder={
        "upsample_initial_channel": 1024,
        "resblock_kernel_sizes": [3, 7, 11],
        "resblock_dilation_sizes": [[1, 3, 5]] * 3,
    },
    clap={"projection_dim": 512, "text_config": {}, "audio_config": {}},
    t5={"d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_heads": 16},
    gpt2={"n_embd": 768, "n_layer": 12, "n_head": 12},
    audio_encoder={"embed_dim": 768, "depth": 12, "num_heads": 12},
)
ARCHITECTURES = {architecture.name: architecture for architecture in (TINY, POCKET, AUDIOLDM2_LARGE)}


def save_random_backbone(folder: Path, architecture: Architecture = TINY, seed: int = 0) -> None:
    """Write a randomly initialised AudioLDM2 folder, and beside its parts ``audio_encoder/`` in timm's layout."""
    with torch.random.fork_rng(devices=[]), no_progress_bars():
        torch.manual_seed(seed)
        random_pipeline(architecture).save_pretrained(folder)
        save_audio_encoder(architecture.build_audio_encoder(), folder / "audio_encoder", architecture)


def random_pipeline(architecture: Architecture) -> Any:
    """The pipeline with random weights from torch's global generator, and tokenizers over single characters."""
    tokenizer, tokenizer_2 = _clap_tokenizer(), _t5_tokenizer()
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
    return DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def _clap_tokenizer() -> transformers.RobertaTokenizer:
    """CLAP's tokenizer class over single bytes."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "<mask>"]
    return transformers.RobertaTokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)}, merges=[], model_max_length=512
    )


def _t5_tokenizer() -> transformers.T5Tokenizer:
    """T5's tokenizer class over single characters."""
    characters = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()[]-_/&%#+*"
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), *((character, -4.0) for character in characters)]
    return transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=128)


def save_audio_encoder(encoder: VisionTransformer, folder: Path, architecture: Architecture) -> None:
    """Write ``encoder`` in timm's layout: ``config.json`` and ``model.safetensors``."""
    sizes = architecture.audio_encoder_sizes()
    folder.mkdir(parents=True)
    weights = {key: value.contiguous() for key, value in encoder.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": "vit_base_patch16_224",
        "num_classes": 0,
        "num_features": sizes["embed_dim"],
        "model_args": sizes,
        "pretrained_cfg": {
            "tag": "audiomae",
            "input_size": [1, *sizes["img_size"]],
            "fixed_input_size": True,
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
