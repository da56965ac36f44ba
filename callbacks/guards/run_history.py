"""History of a run: every start, stop and resume, with the versions and data that it ran on."""

import datetime
import importlib.metadata
import json
import os
import platform
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities.exceptions import SIGTERMException

from apa_lightning.utils.lightning_compat import is_fast_dev_run
from callbacks.run_folder import run_folder

PACKAGES = ("apa_lightning", "torch", "lightning", "diffusers", "transformers", "torchaudio", "timm", "webdataset")


class RunHistory(L.Callback):
    """Appends to ``history.jsonl`` in the run's folder, next to ``config.yaml`` and the quarantine reports.

    A line ``start`` holds the time, step, checkpoint it continues from, command, machine, processes, versions, the state of
    the code (git commit and changed files) and of the data (what the datamodule's ``describe`` says: shards, clips,
    digest); a line ``end`` the step and how it ended. A start without an end was killed.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._folder = run_folder(trainer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        describe = getattr(trainer.datamodule, "describe", dict)  # type: ignore[attr-defined]
        self._append(
            trainer,
            "start",
            resumed_from=str(trainer.ckpt_path) if trainer.ckpt_path else None,
            command=sys.argv,
            host=socket.gethostname(),
            pid=os.getpid(),
            processes=trainer.world_size,
            precision=str(trainer.precision),
            device=str(pl_module.device),
            python=platform.python_version(),
            versions={name: _version(name) for name in PACKAGES},
            git=_git(Path(__file__).parents[2]),
            data=describe(),
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._append(trainer, "end", how="finished")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if trainer.state.fn == "fit":
            stopped = isinstance(exception, SIGTERMException) and isinstance(exception.code, int)
            how = signal.Signals(exception.code - 128).name if stopped else type(exception).__name__  # type: ignore
            self._append(trainer, "end", how=how, message=str(exception).split("\n")[0])

    def _append(self, trainer: L.Trainer, event: str, **details: Any) -> None:
        if not trainer.is_global_zero or is_fast_dev_run(trainer) or self._folder is None:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        time = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with open(self._folder / "history.jsonl", "a", encoding="utf-8") as file:
            line = {
                "event": event,
                "time": time,
                "step": trainer.global_step,
                "epoch": trainer.current_epoch,
                **details,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit and changed files of the code, where it lies in a git checkout."""
    commands = {"commit": ("rev-parse", "HEAD"), "changed": ("status", "--porcelain", "--untracked-files=no")}
    found = {}
    for name, command in commands.items():
        try:
            done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        if done.returncode:
            return None
        found[name] = done.stdout
    return {"commit": found["commit"].strip(), "changed": [line[3:] for line in found["changed"].splitlines()]}
