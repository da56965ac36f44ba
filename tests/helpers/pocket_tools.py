"""A pocket folder with random weights, and short clips of tones in the renderer's form."""

import math
import shutil
from functools import cache
from pathlib import Path

import torch
import transformers
from random_folders import scratch
from shard_tools import encode

from apa_lightning.backbones.architectures import POCKET, save_audio_encoder
from apa_lightning.pocket.assembly import complete, save_half
from apa_lightning.pocket.parts.clap import feature_extractor
from apa_lightning.pocket.text.tokenizers import clap_tokenizer, t5_tokenizer
from apa_lightning.utils.rng import seeded
from datamodules.shards.writer import ShardWriter

LABELS = ("Piano", "Violin, fiddle", "Flute", "Cello")


@cache
def pocket_folder() -> Path:
    """All trained parts of the pocket, with random weights; no U-Net. Never write into it."""
    folder = scratch() / "pocket"
    tokenizer, tokenizer_2 = clap_tokenizer(), t5_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts = {
            "vae": POCKET.build_vae(),
            "vocoder": POCKET.build_vocoder(),
            "text_encoder": POCKET.build_clap(tokenizer),
            "text_encoder_2": transformers.T5EncoderModel(POCKET.t5_config(tokenizer_2)),
            "projection_model": POCKET.build_projection(),
            "language_model": POCKET.build_gpt2(),
        }
        for name, part in parts.items():
            save_half(part, folder / name)
        save_audio_encoder(POCKET.build_audio_encoder().half(), folder / "audio_encoder", POCKET.audio_encoder_sizes())
    tokenizer.save_pretrained(folder / "tokenizer")
    tokenizer_2.save_pretrained(folder / "tokenizer_2")
    feature_extractor().save_pretrained(folder / "feature_extractor")
    return folder


def with_untrained_unet(folder: Path, target: Path, seed: int = 0) -> None:
    """Copy the parts of ``folder`` to ``target``, add an untrained U-Net of the pocket sizes, and complete the folder."""
    shutil.copytree(folder, target, dirs_exist_ok=True)
    with seeded(seed):
        save_half(POCKET.build_unet(), target / "unet")
    complete(target)


def tones(count: int, seconds: float = 5.12) -> list[dict]:
    """Clips of decaying harmonics: the label decides the timbre, the melody the pitch."""
    time = torch.arange(round(seconds * 16_000)) / 16_000
    clips = []
    for i in range(count):
        label, pitch = i % len(LABELS), 57 + i // len(LABELS) % 12
        base = 440 * 2 ** ((pitch - 69) / 12)
        partials = sum(torch.sin(2 * math.pi * base * k * time) / k ** (0.5 + label) for k in range(1, 6))
        clips.append(
            {
                "key": f"clip_{i}",
                "waveform": 0.2 * partials * torch.exp(-label * (time % 1.28)),
                "prompt": f"a recording of a {LABELS[label].split(',')[0].lower()} solo",
                "labels": [LABELS[label]],
                "num_samples": len(time),
                "metadata": {
                    "kind": "solo",
                    "instrument": LABELS[label].split(",")[0].lower(),
                    "melody": f"tune-{i // len(LABELS)}",
                    "texture": "melody",
                    "notes": [[0.0, seconds, pitch, 90]],
                },
            }
        )
    return clips


def batch(items: list[dict]) -> dict:
    """Collated as the datamodule does."""
    return {k: torch.stack([i[k] for i in items]) if k == "waveform" else [i[k] for i in items] for k in items[0]}


def tone_shards(
    folder: Path, name: str, count: int, per_shard: int = 4, seconds: float = 10.24, first: int = 0
) -> list[Path]:
    """Clips of :func:`tones` from number `first` on, as shards with indexes; keys begin with `name`."""
    with ShardWriter(folder / (name + "-{:06d}.tar"), max_samples=per_shard) as writer:
        for item in tones(first + count, seconds)[first:]:
            data = encode(item["waveform"].numpy())
            writer.write(f"{name}-{item['key']}", data, "flac", {**item["metadata"], "labels": item["labels"]})
    return writer.shards
