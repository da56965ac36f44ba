"""Backbones with random weights, written once for all tests of a process; never write into them."""

import atexit
import dataclasses
import shutil
import tempfile
from functools import cache
from pathlib import Path

import transformers as hf

from apa_lightning.backbones.architectures import TINY, save_random_backbone
from apa_lightning.backbones.stable_audio_sizes import TINY as TINY_STABLE_AUDIO
from apa_lightning.utils.pretrained import packaged


@cache
def scratch() -> Path:
    """A folder that goes with the process."""
    folder = Path(tempfile.mkdtemp(prefix="apa-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def tiny_backbone(sample_size: int = 256) -> Path:
    """The folder of a tiny AudioLDM2 with a window of ``sample_size`` latent frames (256: 10.24 s); ``audio_encoder`` is in it."""
    folder = scratch() / f"tiny-{sample_size}"
    if not folder.exists():
        save_random_backbone(folder, dataclasses.replace(TINY, unet={**TINY.unet, "sample_size": sample_size}))
    return folder


def tiny_parts(sample_size: int = 256) -> dict[str, str]:
    """That backbone and its audio encoder, as settings of the model."""
    folder = tiny_backbone(sample_size)
    return {"backbone": str(folder), "audio_encoder": str(folder / "audio_encoder")}


def tiny_flags(sample_size: int = 256) -> list[str]:
    """The same for the command line."""
    return [f"--model.{name}={path}" for name, path in tiny_parts(sample_size).items()]


def tiny_musicgen_backbone() -> Path:
    """The folder of a tiny MusicGen with 50 frames of 4 codes a second; ``audio_encoder`` in it encodes 1.28 s."""
    from apa_lightning.backbones.musicgen.sizes import ARCHITECTURES

    folder = scratch() / "musicgen-backbone"
    if not folder.exists():
        encoder = dataclasses.replace(TINY, unet={**TINY.unet, "sample_size": 32})
        dataclasses.replace(ARCHITECTURES["musicgen-tiny"], audio_encoder=encoder).save_random(folder)
    return folder


def tiny_musicgen() -> Path:
    """A tiny MusicGen-Melody of the real class in the hub's layout, with the pocket's T5 tokenizer."""
    folder = scratch() / "musicgen"
    if folder.exists():
        return folder
    tokenizer = hf.AutoTokenizer.from_pretrained(packaged() / "tokenizer_2")
    text = hf.T5Config(vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    codec = hf.EncodecConfig(
        target_bandwidths=[1.5], sampling_rate=32_000, audio_channels=1, num_filters=4, upsampling_ratios=[8, 5, 4, 4],
        codebook_size=64, codebook_dim=16, hidden_size=16, num_lstm_layers=1,
    )  # fmt: skip
    decoder = hf.MusicgenMelodyDecoderConfig(
        vocab_size=64, num_hidden_layers=1, ffn_dim=32, num_attention_heads=2, hidden_size=16, num_codebooks=4,
        pad_token_id=64, bos_token_id=64, audio_channels=1,
    )  # fmt: skip
    parts = {"text_encoder": text.to_dict(), "audio_encoder": codec.to_dict(), "decoder": decoder.to_dict()}
    model = hf.MusicgenMelodyForConditionalGeneration(hf.MusicgenMelodyConfig(**parts, num_chroma=12, chroma_length=50))
    settings = model.generation_config
    settings.decoder_start_token_id = settings.pad_token_id = settings.bos_token_id = 64
    settings.guidance_scale, settings.do_sample, settings.top_k = 3.0, True, 250
    model.save_pretrained(folder)
    hf.MusicgenMelodyProcessor(hf.MusicgenMelodyFeatureExtractor(feature_size=12), tokenizer).save_pretrained(folder)
    return folder


def tiny_stable_audio() -> Path:
    """The folder of a tiny Stable Audio with a window of 2.97 s; its ``audio_encoder`` encodes 1.28 s."""
    folder = scratch() / "stable-audio"
    if not folder.exists():
        TINY_STABLE_AUDIO.save_random(folder)
    return folder
