"""The command ``sizes``: an architecture without weights, and how large its adapter is."""

from pathlib import Path

import torch

from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.backbones.architectures import ARCHITECTURES, adapted_unet, save_random_backbone
from apa_lightning.errors import InputError


def sizes(
    architecture: str = "audioldm2-large", folder: Path | None = None, write: Path | None = None, seed: int = 0
) -> None:
    """Build an AudioLDM2 architecture without weights and print its sizes.

    Args:
        architecture: ``audioldm2-large`` (the published sizes), ``pocket`` (the embedded default) or ``tiny``.
        folder: Read the architecture from this AudioLDM2 folder's config files instead.
        write: Also write it to this new folder in the hub's layout with random weights (5 GB for audioldm2-large), to try
            training at real widths.
        seed: Seed of the random weights.
    """
    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture: {architecture!r} is unknown; choose one of {', '.join(ARCHITECTURES)}.")
    chosen = ARCHITECTURES[architecture]
    with torch.device("meta"):
        unet, layers = adapted_unet(folder or chosen)
        adapter = AudioPromptAdapter(layers)
    print(
        f"{folder or chosen.name}\n"
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
