"""The command ``sizes``: an architecture without weights, and how large its adapter is."""

from pathlib import Path
from typing import Any

import torch

from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.backbones import architectures, stable_audio_sizes
from apa_lightning.backbones.factory import kind_of
from apa_lightning.backbones.musicgen import sizes as musicgen
from apa_lightning.errors import InputError

ARCHITECTURES: dict[str, Any] = {
    **architectures.ARCHITECTURES,
    **stable_audio_sizes.ARCHITECTURES,
    **musicgen.ARCHITECTURES,
}
#: Which architecture reads a folder's config files, by the class that the folder names.
OF_FOLDER: dict[str | None, Any] = {
    "StableAudioPipeline": stable_audio_sizes.STABLE_AUDIO_OPEN,
    "MusicgenForConditionalGeneration": musicgen.MUSICGEN_SMALL,
}


def sizes(
    architecture: str = "audioldm2-large", folder: Path | None = None, write: Path | None = None, seed: int = 0
) -> None:
    """Build a backbone without weights and print its sizes.

    Args:
        architecture: ``audioldm2-large``, ``stable-audio-open``, ``musicgen-small``, ``musicgen-medium`` or ``musicgen-large``
            (the published sizes), ``pocket`` (the embedded default), ``tiny``, ``stable-audio-tiny`` or ``musicgen-tiny``.
        folder: Read the architecture from the config files of this folder instead, of any of these kinds.
        write: Also write it to this new folder in the hub's layout with random weights (5 GB for the published sizes), to try
            training at real widths.
        seed: Seed of the random weights.
    """
    if architecture not in ARCHITECTURES:
        raise InputError(f"architecture: {architecture!r} is unknown; choose one of {', '.join(ARCHITECTURES)}.")
    chosen = ARCHITECTURES[architecture]
    shown = chosen if folder is None else OF_FOLDER.get(kind_of(folder), architectures.AUDIOLDM2_LARGE)
    with torch.device("meta"):
        model, layers = shown.adapted_model(folder)
        adapter = AudioPromptAdapter(layers)
    print(
        f"{folder or chosen.name}\n"
        f"  {f'{shown.part} parameters':24}{sum(p.numel() for p in model.parameters()):>13,}\n"
        f"  adapted attention layers{len(adapter.layer_names):>14,}\n"
        f"  adapter matrices        {sum(1 for _ in adapter.parameters()):>13,}\n"
        f"  trainable parameters    {sum(p.numel() for p in adapter.parameters()):>13,}"
    )
    if write is not None:
        if write.exists():
            raise InputError(f"write: {write} exists already; give a new folder.")
        chosen.save_random(write, seed)
        print(f"  random weights in {write}")
