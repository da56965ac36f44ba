"""Short fits for the tests of callbacks: a tiny backbone with a window of 1.28 s, and clips of pure tones."""

import math
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from random_folders import tiny_parts
from torch.utils.data import DataLoader

from apa_lightning.conditioning.dropout import PoolingRates
from apa_lightning.module import AudioPromptModule
from callbacks.validation.plan import ValidationPlan

LABELS = ("Piano", "Piano", "Violin, fiddle", "Jazz")
PLAN = ValidationPlan(num_clips=2, num_inference_steps=1)


#: Latent frames: 1.28 s.
WINDOW = 32


def build(**options) -> AudioPromptModule:
    module = AudioPromptModule(**tiny_parts(WINDOW), pooling_rates=PoolingRates((2,)), **options)
    module.configure_model()
    return module


def clips(count: int, window: int, first: int = 0) -> list[dict]:
    time = torch.arange(window) / 16_000
    return [
        {
            "key": f"clip_{i}",
            "waveform": 0.3 * torch.sin(2 * math.pi * 220 * 2 ** (i * 5 / 12) * time),
            "prompt": f"tone {i}",
            "labels": [LABELS[i % len(LABELS)]],
        }
        for i in range(first, first + count)
    ]


def loader(items: list[dict], batch_size: int = 2) -> DataLoader:
    def collate(batch):
        return {
            key: torch.stack([item[key] for item in batch]) if key == "waveform" else [item[key] for item in batch]
            for key in batch[0]
        }

    return DataLoader(items, batch_size=batch_size, collate_fn=collate)


def fit(
    module: AudioPromptModule, folder: Path, callbacks: list, steps: int = 2, ckpt_path=None, **options
) -> L.Trainer:
    window = module.backbone.window_samples
    defaults = {
        "logger": False,
        "val_check_interval": 1,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(
        max_steps=steps,
        default_root_dir=folder,
        accelerator="cpu",
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **defaults | options,
    )
    trainer.fit(module, loader(clips(2, window)), loader(clips(2, window, first=10)), ckpt_path=ckpt_path)
    return trainer


class Recorder(L.Callback):
    """Notes the adapter's weights after each step and inside each validation."""

    def __init__(self):
        self.trained, self.validated = [], []

    @staticmethod
    def weights(module) -> torch.Tensor:
        return torch.cat([weight.detach().flatten() for weight in module.adapter.parameters()]).clone()

    def on_train_start(self, trainer, pl_module):
        self.trained.append(self.weights(pl_module))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.trained.append(self.weights(pl_module))

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validated.append(self.weights(pl_module))


def assert_resumed_exactly(folder: Path, steps: int) -> None:
    """The last checkpoints of the runs ``whole`` and ``resumed`` in a folder hold the same weights and the same optimizer."""
    whole, resumed = (
        torch.load(max((folder / name).glob("**/last.ckpt"), key=lambda path: path.stat().st_mtime), weights_only=True)
        for name in ("whole", "resumed")
    )
    assert whole["global_step"] == resumed["global_step"] == steps
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())
    states = [one["optimizer_states"][0]["state"] for one in (whole, resumed)]
    assert states[0] and all(torch.equal(states[0][i]["exp_avg"], states[1][i]["exp_avg"]) for i in states[0])
