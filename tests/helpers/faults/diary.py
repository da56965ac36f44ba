"""Callbacks of a fit under observation: what it did in each step, and an end at a chosen moment."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import psutil
import torch


class Diary(L.Callback):
    """Appends a line per training and validation batch to ``diary.jsonl``: keys, loss and weights, bit for bit."""

    def __init__(self, path: str):
        self.path = path

    def _write(self, trainer: L.Trainer, **line: object) -> None:
        rank = f"-rank{trainer.global_rank}" if trainer.global_rank else ""
        with open(f"{self.path}{rank}", "a") as file:
            file.write(json.dumps(line) + "\n")

    def on_train_batch_end(self, trainer, pl_module, outputs: Any, batch: Any, batch_idx: int) -> None:
        digest = hashlib.sha256()
        for weight in pl_module.adapter.parameters():
            digest.update(weight.detach().numpy().tobytes())
        loss = float(outputs["loss"]).hex()
        self._write(
            trainer,
            batch=trainer.fit_loop.total_batch_idx,
            step=trainer.global_step,
            keys=batch["key"],
            loss=loss,
            weights=digest.hexdigest(),
        )

    def on_validation_end(self, trainer, pl_module) -> None:
        if not trainer.sanity_checking:
            loss = float(trainer.callback_metrics["val/loss"]).hex()
            self._write(trainer, validated=trainer.fit_loop.total_batch_idx, loss=loss)


def lines(path: Path) -> list[dict]:
    """What a run wrote; a kill may have cut the last line."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def die(how: int | str) -> None:
    """End by a signal, or by an exception of this name."""
    if how == "exception":
        raise RuntimeError("a bug")
    os.kill(os.getpid(), int(how))


class Bomb(L.Callback):
    """Ends the process in the ``step``-th training step, at a moment that is named by a hook of Lightning."""

    def __init__(self, hook: str, step: int, how: int | str):
        def explode(trainer: L.Trainer, *_: Any, **__: Any) -> None:
            if trainer.global_step == step and not trainer.sanity_checking:
                die(how)

        setattr(self, hook, explode)


def on_event(event: str, ending: str, count: int, how: int) -> None:
    """Kill this process just before the ``count``-th time that Python is about to do ``event`` ("open", "os.rename",
    "os.remove") with a path that ends so."""
    left = [count]

    def hook(name: str, arguments: tuple) -> None:
        if name != event:
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if isinstance(path, str | os.PathLike) and os.fspath(path).endswith(ending):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), how)

    sys.addaudithook(hook)


def in_a_write(ending: str, count: int, size: int) -> None:
    """Let the system kill this process when the ``count``-th file whose name ends so is ``size`` bytes long."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    left = [count]

    def hook(name: str, arguments: tuple) -> None:
        if name == "open" and arguments[1] and "w" in str(arguments[1]) and str(arguments[0]).endswith(ending):
            left[0] -= 1
            if left[0] == 0:
                resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
                resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    sys.addaudithook(hook)


def differences(first: Any, second: Any, place: str = "") -> Iterator[str]:
    """Where two contents of checkpoints differ, tensors bit for bit."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in first.keys() | second.keys():
            yield from differences(first.get(key), second.get(key), f"{place}/{key}")
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple) and len(first) == len(second):
        for number, pair in enumerate(zip(first, second, strict=True)):
            yield from differences(*pair, f"{place}/{number}")
    elif isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        if not torch.equal(first, second):
            yield place
    elif first != second:
        yield f"{place} ({first} and {second})"


class Poison(L.Callback):
    """Makes the batch or a gradient of some steps NaN or infinite, on one rank."""

    def __init__(self, steps: list[int], where: str, value: float = float("nan"), rank: int = 0):
        self.steps, self.where, self.value, self.rank = steps, where, value, rank

    def _due(self, trainer: L.Trainer) -> bool:
        return trainer.global_step in self.steps and trainer.global_rank == self.rank

    def on_train_batch_start(self, trainer, pl_module, batch: Any, batch_idx: int) -> None:
        if self.where == "batch" and self._due(trainer):
            batch["waveform"][0, 100] = self.value

    def on_after_backward(self, trainer, pl_module) -> None:
        if self.where == "gradient" and self._due(trainer):
            next(pl_module.adapter.parameters()).grad[0] = self.value


class Meter(L.Callback):
    """Appends what the process and its workers hold to a file, every so many training steps or edits."""

    def __init__(self, path: str, every: int):
        self.path, self.every, self.count = path, every, 0

    def on_train_batch_end(self, trainer, *_: Any) -> None:
        self.count += 1
        self._measure()

    def on_predict_batch_end(self, trainer, pl_module, outputs: Any, batch: Any, *_: Any) -> None:
        before, self.count = self.count, self.count + len(outputs)
        if before // self.every != self.count // self.every:
            self._measure(due=True)

    def _measure(self, due: bool = False) -> None:
        if not due and self.count % self.every:
            return
        me = psutil.Process()
        family = [me, *me.children(recursive=True)]
        with open(self.path, "a") as file:
            held = {
                "count": self.count,
                "megabytes": sum(process.memory_full_info().uss for process in family) / 2**20,
                "files": sum(process.num_fds() for process in family),
                "threads": sum(process.num_threads() for process in family),
                "shared": sum(path.stat().st_size for path in Path("/dev/shm").glob("torch_*")),
                "processes": len(family),
            }
            file.write(json.dumps(held) + "\n")


class Keys(L.Callback):
    """Appends the rank, the place and the keys of every batch to a file."""

    def __init__(self, path: str):
        self.path = path

    def _write(self, trainer: L.Trainer, kind: str, number: int, keys: list[str]) -> None:
        line = json.dumps({"kind": kind, "rank": trainer.global_rank, "number": number, "keys": keys}) + "\n"
        with open(self.path, "ab", buffering=0) as file:
            file.write(line.encode())  # at once: several ranks write here

    def on_train_batch_end(self, trainer, pl_module, outputs: Any, batch: Any, batch_idx: int) -> None:
        self._write(trainer, "train", trainer.fit_loop.total_batch_idx, batch["key"])

    def on_validation_batch_end(self, trainer, pl_module, outputs: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._write(trainer, "validate", batch_idx, batch["key"])

    def on_predict_batch_end(self, trainer, pl_module, outputs: Any, batch: Any, batch_idx: int, *_: Any) -> None:
        self._write(trainer, "predict", batch_idx, [request.name for request in batch])


class Meanwhile(L.Callback):
    """Does something to the files of a run when its first epoch of training is over: a line of shell."""

    def __init__(self, command: str):
        self.command = command

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch == 0:
            subprocess.run(self.command, shell=True, check=True)
