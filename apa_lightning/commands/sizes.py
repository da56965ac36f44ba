"""The command ``sizes``: an architecture without weights, and how large its adapter is."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AudioLDM2UNet2DConditionModel

from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.backbones.architectures import ARCHITECTURES, save_random_backbone
from apa_lightning.errors import InputError


def sizes(
    architecture: str = "audioldm2-large", folder: Path | None = None, write: Path | None = None, seed: int = 0
) -> None:
    """Build an AudioLDM2 architecture without weights and print its sizes.

    Args:
        architecture: ``audioldm2-large`` (the published sizes), ``pocket`` (the embedded default) or ``tiny``.
        folder: read the architecture from this AudioLDM2 folder's config files instead.
        write: also write it to this new folder in the hub's layout with random weights (5 GB for audioldm2-large), to try
            training at real widths.
        seed: of the random weights.
    """
    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture: {architecture!r} is unknown; choose one of {', '.join(ARCHITECTURES)}.")
    chosen = ARCHITECTURES[architecture]
    with torch.device("meta"):
        unet, width, name = (
            (chosen.build_unet(), chosen.gpt2["n_embd"], chosen.name) if folder is None else _from_folder(folder)
        )
        adapter = AudioPromptAdapter(unet, width)
    print(
        f"{name}\n"
        f"  U-Net parameters        {sum(p.numel() for p in unet.parameters()):>13,}\n"
        f"  adapted attention layers{len(adapter.layer_names):>14,}\n"
        f"  adapter matrices        {sum(1 for _ in adapter.parameters()):>13,}\n"
        f"  trainable parameters    {sum(p.numel() for p in adapter.parameters()):>13,}"
    )
    if write is not None:
        if write.exists():
            raise InputError(f"write: {write} exists already; give a new folder.")
        save_random_backbone(write, chosen, seed)
        print(f"  random weights in {write}")


def _from_folder(folder: Path) -> tuple[Any, int, str]:
    if not (folder / "unet" / "config.json").is_file():
        raise FileNotFoundError(f"folder: {folder} holds no unet/config.json; give an AudioLDM2 folder.")
    config = AudioLDM2UNet2DConditionModel.load_config(folder / "unet")
    language_model = folder / "language_model" / "config.json"
    if language_model.is_file():
        try:
            width = json.loads(language_model.read_text())["n_embd"]
        except (ValueError, KeyError, TypeError):
            raise InputError(f"folder: {language_model} is no configuration of a GPT-2: it has no n_embd.") from None
    else:
        width = next(width for width in config["cross_attention_dim"][0] if width)
        print(f"{folder} holds no language_model/config.json: the audio stream is taken to be the first, {width} wide.")
    return AudioLDM2UNet2DConditionModel.from_config(config), width, str(folder)
