"""A room to prepare bad files in, and the commands that meet them."""

import contextlib
import errno
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import lightning as L
import pytest
import safetensors.torch
import soundfile
from fit_tools import WINDOW
from markers import Payload
from random_folders import tiny_backbone, tiny_flags
from shard_tools import RATE, plain_tar, sample, tone

from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone

ROOT = Path(__file__).parents[3]
GOOD = 12


class Delivered(L.Callback):
    """Notes the keys of every batch that reaches the model in `delivered.txt`."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with open(Path(trainer.default_root_dir) / "delivered.txt", "a") as file:
            file.writelines(f"{key}\n" for key in batch["key"])

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.on_train_batch_start(trainer, pl_module, batch, batch_idx)


@dataclass
class Room:
    """Where one case prepares its files; `patch` and `stack` are undone behind it."""

    path: Path
    patch: pytest.MonkeyPatch
    stack: contextlib.ExitStack
    keys: set[str] = field(default_factory=set)
    """Every sample that was written into the shards of this room."""

    # --- files --------------------------------------------------------------------------------------------------------

    def write(self, name: str, content: bytes | str) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def recording(self, name: str = "in/good.wav", seconds: float = 1.0, rate: int = RATE, **form) -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(seconds, rate, channels=form.pop("channels", 1)), rate, **form)
        return path

    def culprit(self, content: bytes, suffix: str = "wav") -> Path:
        """A bad recording beside a good one; the folder of both."""
        self.recording()
        return self.write(f"in/culprit.{suffix}", content).parent

    def shard(self, *culprits, good: int = GOOD, name: str = "shard.tar", first: int = 0) -> Path:
        """A shard without an index: good samples, with the culprits' members in their middle."""
        self.keys |= {f"good{i:02d}" for i in range(first, first + good)}
        half = first + good // 2
        members = [*_good(first, half), *culprits, *_good(half, first + good)]
        return plain_tar(self.path / name, members)

    def clip(self, audio: bytes, suffix: str = "wav") -> Path:
        """A shard in which one clip is bad."""
        self.keys.add("culprit")
        return self.shard((f"culprit.{suffix}", audio), ("culprit.json", b'{"labels": ["Piano"]}'))

    def manifest(self, *lines: dict | str, name: str = "edits.jsonl") -> Path:
        self.recording("a.wav")
        return self.write(name, "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))

    def adapter(self, change: Callable[[dict], object] = lambda weights: None) -> Path:
        path = self.path / "culprit.safetensors"
        AudioLDM2Backbone.from_pretrained(tiny_backbone(WINDOW)).new_adapter().save(path)
        weights = safetensors.torch.load_file(path)
        change(weights)
        safetensors.torch.save_file(weights, path)
        return path

    def payload(self) -> Payload:
        """An object that leaves a canary when it is unpickled."""
        return Payload(self.path / "canary")

    # --- commands -----------------------------------------------------------------------------------------------------

    def fit(self, *more: object, **shards: Path | None) -> list[object]:
        """One step over all clips of `shard`, in one batch."""
        return self._train("fit", "train_shards", *more, "--trainer.max_steps", 1, **shards)

    def validate(self, *more: object, **shards: Path | None) -> list[object]:
        return self._train("validate", "validation_shards", *more, **shards)

    def _train(self, command: str, split: str, *more: object, shard: Path | None = None) -> list[object]:
        (self.path / "runs").mkdir(exist_ok=True)
        shards = ["--data.validation_shards" if command == "fit" else "--data.validation_samples", "null"]
        shards += [f"--data.{split}", shard] if shard is not None else []
        settings = ["--data.batch_size", 16, "--data.max_broken_share", 0.5, "--data.caption_templates", "['{}']"]
        quiet = ["--trainer.callbacks", "null", "--trainer.callbacks+=bad_inputs.room.Delivered"]
        checkpoints = ["--trainer.enable_checkpointing", "false"]
        configs = ["--config", "configs/base.yaml", "--config", "tests/small.yaml"]
        folder = ["--trainer.default_root_dir", self.path / "runs"]
        return [command, *configs, *tiny_flags(WINDOW), *settings, *shards, *quiet, *checkpoints, *folder, *more]

    def predict(self, *more: object) -> list[object]:
        output = ["--data.output", self.path / "edits", "--data.num_inference_steps", 1]
        return [
            "predict",
            "--config",
            "configs/predict.yaml",
            "--trainer.accelerator",
            "cpu",
            *tiny_flags(WINDOW),
            "--model.adapter=null",
            *output,
            *more,
        ]

    def folder(self, *more: object) -> list[object]:
        """Edit the recordings in `in`."""
        return self.predict("--data.folder", self.path / "in", "--data.prompt", "a violin", *more)

    def lines(self, *lines: dict | str) -> list[object]:
        """Edit by a manifest of these lines."""
        return self.predict("--data.manifest", self.manifest(*lines))

    # --- full disks -----------------------------------------------------------------------------------------------------

    def small_disk(self, name: str, kilobytes: int) -> Path:
        """A folder on a disk of its own that is soon full."""
        path = self.path / name
        path.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)]
        if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("only root can mount a small disk")
        self.stack.callback(subprocess.run, ["umount", "-l", str(path)], check=True)
        return path

    def full_disk(self) -> None:
        """From here on nothing reaches the disk; a disk says so when it is asked to sync, if not before."""

        def sync(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        self.patch.setattr(os, "fsync", sync)


@cache
def _good(first: int, last: int) -> list:
    return [member for i in range(first, last) for member in sample(f"good{i:02d}", i)]
