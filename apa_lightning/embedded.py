"""The embedded default backbone: small parts of AudioLDM2's real classes, built deterministically on first use.

Its weights are random, so what it makes is noise; it exists so that every command runs without a network. The folder
has the hub's own layout and is read by the same code as ``cvssp/audioldm2-large``. Nothing depends on its sizes.
"""

import hashlib
import json
import os
import shutil
import tempfile
from functools import partial
from pathlib import Path

import diffusers
import timm
import torch
import transformers
from diffusers import AudioLDM2Pipeline, AudioLDM2ProjectionModel, AudioLDM2UNet2DConditionModel, AutoencoderKL, DDIMScheduler
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from tokenizers import pre_tokenizers

from apa_lightning.sources import frozen, no_progress_bars

SEED = 0
VERSION = 1  # raise it when anything below changes: the folder in the cache is then built anew
LOA_WIDTH, TEXT_WIDTH, CLAP_WIDTH = 48, 32, 24
ENCODER_DEPTH, ENCODER_HEADS = 4, 4


def cache_folder() -> Path:
    """``$APA_CACHE``, else ``$XDG_CACHE_HOME/apa_lightning``, else ``~/.cache/apa_lightning``."""
    if folder := os.environ.get("APA_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "apa_lightning"


def embedded_backbone() -> Path:
    """The folder of the embedded backbone; built in the cache on first use (a few seconds), atomically."""
    libraries = f"{diffusers.__version__} {transformers.__version__} {timm.__version__} {torch.__version__}"
    key = hashlib.sha256(f"{VERSION} {SEED} {libraries}".encode()).hexdigest()[:8]
    folder = cache_folder() / f"random-backbone-{key}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
        try:
            build_random_backbone(building, SEED)
            building.chmod(0o755)
            os.rename(building, folder)
        except OSError:
            if not folder.exists():  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder


def build_random_backbone(folder: Path, seed: int = 0, sample_size: int = 256) -> None:
    """Write a randomly initialised AudioLDM2 folder in the hub's layout, plus ``audio_encoder/`` in timm's.

    Args:
        folder: where to.
        seed: of the weights.
        sample_size: latent frames of the window; 256 is 10.24 s, as AudioLDM2.
    """
    with torch.random.fork_rng(devices=[]), no_progress_bars():
        torch.manual_seed(seed)
        _random_pipeline(sample_size).save_pretrained(folder)
        _save_random_audio_encoder(folder / "audio_encoder", frames=sample_size * 4)


def _random_pipeline(sample_size: int) -> AudioLDM2Pipeline:
    text = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": CLAP_WIDTH, "intermediate_size": 32}
    tokenizer, tokenizer_2 = _clap_tokenizer(), _t5_tokenizer()
    clap = transformers.ClapModel(transformers.ClapConfig(
        text_config={**text, "vocab_size": len(tokenizer), "max_position_embeddings": 514, "pad_token_id": tokenizer.pad_token_id,
                     "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "projection_dim": CLAP_WIDTH},
        audio_config={"patch_embeds_hidden_size": 8, "hidden_size": 32, "depths": [1, 1], "num_attention_heads": [1, 2],
                      "num_hidden_layers": 2, "projection_dim": CLAP_WIDTH},
        projection_dim=CLAP_WIDTH,
    ))
    t5 = transformers.T5EncoderModel(transformers.T5Config(
        vocab_size=len(tokenizer_2), d_model=TEXT_WIDTH, d_kv=16, d_ff=64, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu",
        pad_token_id=tokenizer_2.pad_token_id, eos_token_id=tokenizer_2.eos_token_id, decoder_start_token_id=tokenizer_2.pad_token_id,
    ))
    language_model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=64, n_positions=1024, n_embd=LOA_WIDTH, n_layer=1, n_head=2, max_new_tokens=8,
        bos_token_id=0, eos_token_id=0,
    ))
    vocoder = transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(
        model_in_dim=64, sampling_rate=16_000, upsample_initial_channel=32, upsample_rates=[5, 4, 2, 2, 2],
        upsample_kernel_sizes=[16, 16, 8, 4, 4], resblock_kernel_sizes=[3], resblock_dilation_sizes=[[1, 3]], normalize_before=False,
    ))
    unet = AudioLDM2UNet2DConditionModel(
        sample_size=sample_size, in_channels=8, out_channels=8, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4), transformer_layers_per_block=1,
        cross_attention_dim=[[None, LOA_WIDTH, TEXT_WIDTH, None]] * 2,
    )
    vae = AutoencoderKL(
        in_channels=1, out_channels=1, latent_channels=8, block_out_channels=(8, 16, 16), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3, scaling_factor=0.4, mid_block_add_attention=False,
    )
    scheduler = DDIMScheduler(
        beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", num_train_timesteps=1000, clip_sample=False,
        set_alpha_to_one=False, steps_offset=1, prediction_type="epsilon",
    )
    parts = {
        "vae": vae, "text_encoder": clap, "text_encoder_2": t5, "unet": unet, "vocoder": vocoder, "language_model": language_model,
        "projection_model": AudioLDM2ProjectionModel(CLAP_WIDTH, TEXT_WIDTH, LOA_WIDTH),
    }
    return AudioLDM2Pipeline(
        **{name: frozen(part) for name, part in parts.items()}, tokenizer=tokenizer, tokenizer_2=tokenizer_2,
        feature_extractor=transformers.ClapFeatureExtractor(), scheduler=scheduler,
    )


def _clap_tokenizer() -> transformers.RobertaTokenizer:
    """CLAP's tokenizer class over single bytes."""
    vocabulary = ["<s>", "<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "<mask>"]
    return transformers.RobertaTokenizer(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[], model_max_length=512)


def _t5_tokenizer() -> transformers.T5Tokenizer:
    """T5's tokenizer class over single characters."""
    characters = "▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"()[]-_/&%#+*"
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), *((character, -4.0) for character in characters)]
    return transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=128)


def _save_random_audio_encoder(folder: Path, frames: int) -> None:
    sizes = {"img_size": [frames, 128], "in_chans": 1, "embed_dim": LOA_WIDTH, "depth": ENCODER_DEPTH, "num_heads": ENCODER_HEADS}
    encoder = VisionTransformer(
        **sizes, patch_size=16, num_classes=0, global_pool="", norm_layer=partial(torch.nn.LayerNorm, eps=1e-6)
    )
    folder.mkdir(parents=True)
    save_file(encoder.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": "vit_base_patch16_224", "num_classes": 0, "num_features": LOA_WIDTH, "model_args": sizes,
        "pretrained_cfg": {"tag": "audiomae", "input_size": [1, frames, 128], "fixed_input_size": True, "num_classes": 0,
                           "first_conv": "patch_embed.proj", "classifier": "head"},
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
