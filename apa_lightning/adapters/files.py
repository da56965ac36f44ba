"""Files that hold an adapter: ours, the published one, a Trainer's checkpoint, a run's folder; and the names that wrappers add."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor

from apa_lightning.adapters.base import AdapterError
from apa_lightning.utils.pretrained import ADAPTER_FILE, read_weights

#: Where an adapter lies in a folder, the best choice first. A checkpoint is the last resort of a run that was stopped early.
PLACES = (ADAPTER_FILE, "pytorch_model.bin", "pytorch_model.safetensors", "checkpoints/last.ckpt", "last.ckpt")
#: Parts of names that wrappers add: DDP, torch.compile, DeepSpeed; and the parts of a model that the adapter was saved with.
WRAPPERS = ("module", "_orig_mod", "_forward_module")
OWNERS = ("model", "adapter", "unet")


def adapter_file(path: Path) -> Path:
    """The file of ``path``, which may be a folder with an adapter in it.

    Raises:
        AdapterError: If there is none in the folder.
    """
    if not path.is_dir():
        return path
    if found := next((path / place for place in PLACES if (path / place).is_file()), None):
        return found
    runs = sorted(run for depth in range(1, 4) for run in path.glob(f"{'*/' * depth}{ADAPTER_FILE}"))
    way_out = (
        f"Give {' or '.join(map(str, runs[:3]))}" if runs else f"Give a file, or a folder with {', '.join(PLACES)}"
    )
    raise AdapterError(f"adapter: {path} is a folder without an adapter. {way_out}.")


def read_adapter(path: Path, names: Collection[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights of an adapter and its metadata.

    Args:
        path: Of the file.
        names: Names of the weights of this adapter; names in the file are shortened to these where no two become one.

    Raises:
        FileNotFoundError, InputError: See :func:`read_weights`.
    """
    weights = read_weights(path, "adapter")
    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, "pt") as file:
            return _renamed(weights, names), file.metadata() or {}
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    weights = _renamed(weights, names)
    if "state_dict" in content and names and weights.keys() >= set(names):  # a checkpoint of a whole model
        weights = {name: weights[name] for name in names}
    about = content.get("adapter")
    if not isinstance(about, dict) or "metadata" not in about:
        return weights, {}
    fingerprint = " ".join(f"{value:.5g}" for value in about["backbone_fingerprint"].tolist())
    return weights, {**about["metadata"], "backbone_fingerprint": fingerprint}


def _renamed(weights: dict[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    if weights.keys() >= set(names):
        return weights
    renamed = {_without_wrappers(name): value for name, value in weights.items()}
    return renamed if len(renamed) == len(weights) else weights


def _without_wrappers(name: str) -> str:
    parts = [part for part in name.split(".") if part not in WRAPPERS]
    while parts and parts[0] in OWNERS:
        parts.pop(0)
    return ".".join(parts)
