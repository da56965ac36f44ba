"""Processes of one run that do not have the same data, weights, checkpoint or settings."""

import hashlib
import socket
from pathlib import Path
from typing import Any

import lightning as L
import torch.distributed as dist

from apa_lightning.errors import InputError

SETTINGS = {
    "data": ("batch_size", "samples_per_epoch", "seed"),
    "model": ("seed",),
    "trainer": ("max_steps", "max_epochs", "accumulate_grad_batches", "val_check_interval"),
}


class SameRun(L.Callback):
    """Refuses to train where the processes of a run differ in what must be the same, as machines with disks of their own may.

    Each process reads its own checkpoint, shards and frozen weights. DDP compares only shapes, so a machine that trains on other
    data, or from another step, would go unnoticed. Compared are the checkpoint's content, what the datamodule's ``describe``
    says of its data, the fingerprint of the backbone, and settings that decide the steps.

    Args:
        ckpt_path: What the run resumes from. Lightning tells it only after it has been loaded.
    """

    def __init__(self, ckpt_path: str | None = None) -> None:
        self.ckpt_path = ckpt_path

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Compare before any checkpoint is loaded.

        Raises:
            InputError: If a process differs from the first one; each process raises it.
        """
        if stage != "fit" or trainer.world_size == 1 or not dist.is_initialized():
            return
        all_facts: list[Any] = [None] * trainer.world_size
        dist.all_gather_object(all_facts, (socket.gethostname(), _facts(trainer, pl_module, self.ckpt_path)))
        (host, first), *others = all_facts
        for rank, (other_host, facts) in enumerate(others, start=1):
            for name, value in first.items():
                if facts[name] != value:
                    raise InputError(
                        f"{name}: process 0 on {host} has {value}, and process {rank} on {other_host} has {facts[name]}. Start "
                        "all processes with the same command on the same files; trainer.default_root_dir must be a folder that "
                        "all machines share."
                    )


def _facts(trainer: L.Trainer, module: Any, ckpt_path: str | None) -> dict[str, Any]:
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    fingerprint = getattr(getattr(module, "adapter", None), "backbone_fingerprint", None)
    objects = {"data": data, "model": module, "trainer": trainer}
    return {
        "ckpt_path": _checkpoint(ckpt_path),
        **{f"data.{split}_shards": about for split, about in getattr(data, "describe", dict)().items()},
        "model.backbone": None if fingerprint is None else [f"{value:.5g}" for value in fingerprint.tolist()],
        **{f"{part}.{name}": getattr(objects[part], name, None) for part, names in SETTINGS.items() for name in names},
    }


def _checkpoint(path: str | None) -> str:
    """What is resumed from: the content of a file counts, and not its place."""
    if path is None:
        return "no checkpoint"
    if not Path(path).is_file():
        return str(path)
    with open(path, "rb") as file:
        return f"a checkpoint of SHA-256 {hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
