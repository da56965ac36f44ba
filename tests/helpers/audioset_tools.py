"""The data module of shards: short ways to build it, to look at its batches and to fit on them."""

from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer

from datamodules.audioset import AudioSetDataModule

Data = TypeVar("Data", bound=AudioSetDataModule)


def module(folder: Path, **options: object) -> AudioSetDataModule:
    defaults: dict = {
        "train_shards": f"{folder}/train-*.tar",
        "validation_shards": f"{folder}/validation-*.tar",
        "batch_size": 2,
        "num_workers": 0,
        "audio_length_in_s": 1.0,
    }
    return AudioSetDataModule(**{**defaults, **options})


def attached(data: Data, model: object = None, rank: int = 0, world_size: int = 1) -> Data:
    """As if Lightning had attached one of several processes with this model."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=0))
    loops = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank, world_size=world_size, log_dir=None, fit_loop=loops, overfit_batches=0, lightning_module=model,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )  # fmt: skip
    data.setup("fit")
    return data


def on_rank(data: Data, rank: int, world_size: int) -> Data:
    """As if Lightning had attached one of several processes."""
    return attached(data, None, rank, world_size)


def keys(loader: object, epoch: int = 0) -> list[list[str]]:
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    return [batch["key"] for batch in loader]  # type: ignore[attr-defined]


ALL = [f"train{i:03d}" for i in range(11)]


class Recorder(LightningModule):
    """Notes what it is given; its loss depends on the data, its weight on all losses so far."""

    def __init__(self, touch: bool = False, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("some_buffer", torch.zeros(3))  # DDP broadcasts buffers at each forward
        self.touch, self.fail_at = touch, fail_at
        self.seen: list = []
        self.validated: list[str] = []

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        if len(self.seen) == self.fail_at:
            raise RuntimeError("stop here")
        loss = (self.weight * batch["waveform"].square().mean() - len(batch["prompt"][0]) / 100) ** 2
        self.seen.append((self.current_epoch, batch_idx, batch["key"], batch["prompt"], loss.item()))
        return loss

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        self.validated += batch["key"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.touch:  # drops a loader's own state in lightning 2.6
            _ = self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(root: Path, **options: object) -> Trainer:
    defaults: dict = {
        "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
        "max_epochs": 3, "default_root_dir": root, "num_sanity_val_steps": 0, "enable_checkpointing": False,
    }  # fmt: skip
    return Trainer(**{**defaults, **options})


def fit(root: Path, folder: Path, model: Recorder, ckpt: Path | None = None, **options: object) -> Recorder:
    data = {
        k: options.pop(k)
        for k in ("batch_size", "num_workers", "samples_per_epoch", "seed", "train_shards")
        if k in options
    }
    trainer(root, **options).fit(model, module(folder, **data), ckpt_path=ckpt)
    return model
