"""AudioLDM2 folders with random weights, in the hub's own layout, from the real classes at any size.

``TINY`` is the embedded default and what tests use; ``AUDIOLDM2_LARGE`` has the published sizes (REFERENCE).
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

from apa_lightning.sources import frozen, no_progress_bars

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
ARCHITECTURES = {architecture.name: architecture for architecture in (TINY, AUDIOLDM2_LARGE)}


def save_random_backbone(folder: Path, architecture: Architecture = TINY, seed: int = 0) -> None:
    """Write a randomly initialised AudioLDM2 folder, and beside its parts ``audio_encoder/`` in timm's layout."""
    with torch.random.fork_rng(devices=[]), no_progress_bars():
        torch.manual_seed(seed)
        random_pipeline(architecture).save_pretrained(folder)
        _save_random_audio_encoder(folder / "audio_encoder", architecture)


def random_pipeline(architecture: Architecture) -> Any:
    """The pipeline with random weights from torch's global generator, and tokenizers over single characters."""
    tokenizer, tokenizer_2 = _clap_tokenizer(), _t5_tokenizer()
    clap = architecture.clap
    special = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(
            in_channels=1,
            out_channels=1,
            latent_channels=8,
            scaling_factor=0.4,
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            **architecture.vae,
        ),
        "text_encoder": transformers.ClapModel(
            transformers.ClapConfig(
                text_config={
                    "vocab_size": len(tokenizer),
                    "max_position_embeddings": 514,
                    "projection_dim": clap["projection_dim"],
                    **special,
                    **clap["text_config"],
                },
                audio_config={"projection_dim": clap["projection_dim"], **clap["audio_config"]},
                projection_dim=clap["projection_dim"],
            )
        ),
        "text_encoder_2": transformers.T5EncoderModel(
            transformers.T5Config(  # type: ignore[call-arg]
                vocab_size=len(tokenizer_2),
                feed_forward_proj="gated-gelu",
                pad_token_id=tokenizer_2.pad_token_id,
                eos_token_id=tokenizer_2.eos_token_id,
                decoder_start_token_id=tokenizer_2.pad_token_id,
                **architecture.t5,
            )
        ),
        "projection_model": AudioLDM2ProjectionModel(
            clap["projection_dim"], architecture.t5["d_model"], architecture.gpt2["n_embd"]
        ),
        "language_model": transformers.GPT2LMHeadModel(
            transformers.GPT2Config(  # type: ignore[call-arg]
                max_new_tokens=8,
                bos_token_id=0,
                eos_token_id=0,
                **architecture.gpt2,
            )
        ),
        "unet": architecture.build_unet(),
        "vocoder": transformers.SpeechT5HifiGan(
            transformers.SpeechT5HifiGanConfig(
                model_in_dim=64,
                sampling_rate=16_000,
                upsample_rates=[5, 4, 2, 2, 2],
                upsample_kernel_sizes=[16, 16, 8, 4, 4],
                normalize_before=False,
                **architecture.vocoder,
            )
        ),
    }
    scheduler = DDIMScheduler(
        beta_start=0.0015,
        beta_end=0.0195,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )
    return AudioLDM2Pipeline(
        **{name: frozen(part) for name, part in parts.items()},
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        feature_extractor=transformers.ClapFeatureExtractor(),
        scheduler=scheduler,
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


def _save_random_audio_encoder(folder: Path, architecture: Architecture) -> None:
    frames = architecture.unet["sample_size"] * 4
    sizes = {"img_size": [frames, 128], "in_chans": 1, **architecture.audio_encoder}
    encoder = VisionTransformer(
        **sizes, patch_size=16, num_classes=0, global_pool="", norm_layer=partial(torch.nn.LayerNorm, eps=1e-6)
    )
    folder.mkdir(parents=True)
    save_file(encoder.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": "vit_base_patch16_224",
        "num_classes": 0,
        "num_features": sizes["embed_dim"],
        "model_args": sizes,
        "pretrained_cfg": {
            "tag": "audiomae",
            "input_size": [1, frames, 128],
            "fixed_input_size": True,
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
