"""Loading one part of a pocket folder, or the same part with random weights."""

import importlib
from pathlib import Path
from typing import Any

import torch

from apa_lightning.pocket.assembly import PARTS, require
from apa_lightning.utils.pretrained import frozen, no_progress_bars
from apa_lightning.utils.rng import seeded


def load_part(folder: Path, part: str) -> Any:
    """A part of ``folder`` in single precision, ready for further training.

    Args:
        folder: A pocket folder.
        part: A diffusers or transformers model of :data:`PARTS`.

    Raises:
        InputError: If the folder lacks the part; the message names the recipe that makes it.
    """
    require(Path(folder), (part,))
    kind, library = _class(part)
    precision: dict[str, Any] = {"dtype" if library == "transformers" else "torch_dtype": torch.float32}
    with no_progress_bars():
        return kind.from_pretrained(Path(folder) / part, **precision)


def load_frozen(folder: Path, part: str) -> Any:
    """As :func:`load_part`, in evaluation mode and without gradients."""
    return frozen(load_part(folder, part))


def untrained(folder: Path, part: str, seed: int) -> Any:
    """A frozen part of the sizes of the one in ``folder``, with random weights."""
    kind, library = _class(part)
    with seeded(seed):
        if library == "transformers":
            return frozen(kind(kind.config_class.from_pretrained(folder / part)))
        return frozen(kind.from_config(kind.load_config(folder / part)))


def _class(part: str) -> tuple[Any, str]:
    library, name = PARTS[part][:2]
    library = "transformers" if library == "transformers" else "diffusers"  # AudioLDM2's own classes are in diffusers
    return getattr(importlib.import_module(library), name), library
