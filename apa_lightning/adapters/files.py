"""Files that hold an adapter: ours, the published one, a Trainer's checkpoint, a run's folder; and the names that wrappers add."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors
import torch
from torch import Tensor

from apa_lightning.adapters.base import AdapterError
from apa_lightning.utils.pretrained import ADAPTER_FILE, EMBEDDED, read_weights

#: Where an adapter lies in a folder, the best choice first. A checkpoint is the last resort of a run that was stopped early.
PLACES = (ADAPTER_FILE, "pytorch_model.bin", "pytorch_model.safetensors", "checkpoints/last.ckpt", "last.ckpt")
#: Parts of names that wrappers add: DDP, torch.compile, DeepSpeed; and the parts of a model that the adapter was saved with.
WRAPPERS = ("module", "_orig_mod", "_forward_module")
OWNERS = ("model", "adapter", "unet")
#: Names of the adapters that come with the embedded backbone: the one that keeps the tune, and the one that imitates a sound.
EMBEDDED_ADAPTERS = {EMBEDDED: ADAPTER_FILE, f"{EMBEDDED}:timbre": "timbre.safetensors"}


def download(name: str) -> str:
    """Fetch the adapter of a hub id into the Hugging Face cache, or find it there; returns its folder."""
    from huggingface_hub import snapshot_download  # when it is needed: the import takes a second

    return snapshot_download(name, allow_patterns=list(PLACES[:3]))


def short_name(source: str | os.PathLike) -> str:
    """What an adapter is called by: the stem of a file, the whole name of a folder or hub id, which may hold a version."""
    if str(source) in EMBEDDED_ADAPTERS:
        return str(source).rpartition(":")[2]
    path = Path(source)
    return path.stem if path.is_file() else path.name


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


@dataclass(frozen=True)
class AdapterFile:
    """The content of a file that holds an adapter.

    Attributes:
        path: Of the file.
        weights: By the names in the file.
        metadata: Its header, or what a Trainer's checkpoint says of the adapter.
        is_checkpoint: Whether it may hold a whole model.
    """

    path: Path
    weights: dict[str, Tensor]
    metadata: dict[str, str]
    is_checkpoint: bool = False

    @classmethod
    def read(cls, path: str | os.PathLike) -> Self:
        """Read a file, or the one in a folder.

        Raises:
            FileNotFoundError, InputError: See :func:`adapter_file` and :func:`read_weights`.
        """
        path = adapter_file(Path(path))
        weights = read_weights(path, "adapter")
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt") as file:
                return cls(path, weights, file.metadata() or {})
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        about, metadata = content.get("adapter"), {}
        if isinstance(about, dict) and "metadata" in about:
            fingerprint = " ".join(f"{value:.5g}" for value in about["backbone_fingerprint"].tolist())
            metadata = {**about["metadata"], "backbone_fingerprint": fingerprint}
        return cls(path, weights, metadata, "state_dict" in content)

    def named(self, names: Collection[str]) -> dict[str, Tensor]:
        """The weights by the ``names`` of an adapter's own, shortened to these where no two become one."""
        weights = _renamed(self.weights, names)
        if self.is_checkpoint and names and weights.keys() >= set(names):
            return {name: weights[name] for name in names}
        return weights


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
