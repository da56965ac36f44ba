"""Harmless payloads: what would run code leaves a marker file, and does nothing else."""

import pickle
from pathlib import Path

import torch


def leave(marker: str) -> None:
    """Make the marker file: all that a payload of these tests does."""
    Path(marker).touch()


class Leaver:
    """Calls `leave` where it is built, with or without its ``__init__``: a class that stands where another one is expected."""

    def __new__(cls, marker: str) -> "Leaver":
        leave(marker)
        return super().__new__(cls)

    def __init__(self, marker: str) -> None:
        self.marker = marker


class Payload:
    """Calls `leave` where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return leave, (str(self.marker),)


def pickled(content: object) -> bytes:
    return pickle.dumps(content)


def torch_bytes(content: object, path: Path) -> bytes:
    torch.save(content, path)
    data = path.read_bytes()
    path.unlink()
    return data
