"""Payloads, the careless use of each, and a watch over processes that are started."""

import importlib
import pickle
import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from bad_inputs.room import ROOT, Room
from fit_tools import WINDOW
from markers import leave
from random_folders import tiny_flags

Unsafe = Callable[[], object]
"""The careless use of a payload: the canary must be there afterwards, or the payload is a dud."""
Prepared = tuple[list[object], Unsafe]
WORD = "apa-marker"
"""Stands where a command would stand; there is no such program."""
STARTS = ("os.system", "os.exec", "os.posix_spawn", "subprocess.Popen")
"""Python's audit events of a program that is started."""


def watcher(canary: Path) -> Callable[[str, tuple], None]:
    """An audit hook that leaves a canary when `WORD` reaches a shell or another program."""

    def hook(event: str, arguments: tuple) -> None:
        if event in STARTS and WORD in repr(arguments):
            leave(str(canary))

    return hook


@dataclass(frozen=True)
class Payload:
    """A payload and the command that meets it.

    Attributes:
        name: what it is and where it lies.
        prepare: writes the files into a room; gives the command line and the careless act.
        words: what the one message names; "" where the command carries on.
        environment: of the command.
    """

    name: str
    prepare: Callable[[Room], Prepared]
    words: str = ""
    environment: Callable[[Path], Mapping[str, str]] = field(default=lambda folder: {"ROOM": str(folder)})

    @property
    def code(self) -> int:
        return 2 if self.words else 0

    def __str__(self) -> str:
        return self.name


def unpickles(data: bytes) -> Unsafe:
    return lambda: pickle.loads(data)


def loads(path: Path) -> Unsafe:
    def load() -> object:
        with open(path, "rb") as file:  # by a name that ends in .safetensors torch reads it as that
            return torch.load(file, weights_only=False)

    return load


def imports(path: Path) -> Unsafe:
    return lambda: runpy.run_path(str(path))


def runs(command: str, room: Room) -> Unsafe:
    """What the watcher is told when a shell is given the command; nothing runs."""
    return lambda: watcher(room.path / "canary")("os.system", (command.encode(),))


def loads_yaml(text: str) -> Unsafe:
    return lambda: yaml.unsafe_load(text)


def builds(spec: Mapping[str, Any]) -> Unsafe:
    """Import ``class_path`` and call it with ``init_args``, whatever it is."""

    def build() -> object:
        module, name = spec["class_path"].rsplit(".", 1)
        return getattr(importlib.import_module(module), name)(**spec["init_args"])

    return build


def edit(room: Room, *more: object) -> list[object]:
    room.recording()
    return room.folder(*more)


def evaluation(room: Room, *more: object) -> list[object]:
    room.recording("songs/piano_0.wav", 1.2)
    return [
        "evaluate", "--config", ROOT / "configs/evaluate.yaml", "--config", ROOT / "configs/tasks/timbre.yaml",
        *tiny_flags(WINDOW), f"--model.adapter={room.adapter()}", "--device=cpu",
        f"--data.sources={room.path}/songs", f"--data.output={room.path}/out", "--data.systems=[no_op]",
        "--data.num_inference_steps=1", *more,
    ]  # fmt: skip
