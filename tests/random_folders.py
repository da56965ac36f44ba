"""Backbones with random weights, written once for all tests of a process; never write into them."""

import atexit
import dataclasses
import shutil
import tempfile
from functools import cache
from pathlib import Path

from apa_lightning.random_backbone import TINY, save_random_backbone


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
