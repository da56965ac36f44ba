"""A disk that fills up or cannot be written, and whether the files on it are whole."""

import csv
import json
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
import yaml
from PIL import Image

from datamodules.shards.index import index_path, read_index

TEMPORARY = re.compile(r"\..+\.tmp(\.[^.]*)?")


class Disk:
    """A tmpfs at ``path``, of which only root can make one."""

    def __init__(self, path: Path):
        self.path = path

    def leave(self, kilobytes: int) -> None:
        """Let so much space be free."""
        of = os.statvfs(self.path)
        used = (of.f_blocks - of.f_bfree) * of.f_frsize // 1024
        self._remount(f"rw,size={used + kilobytes}k")

    def read_only(self) -> None:
        self._remount("ro")

    def _remount(self, options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)


@contextmanager
def small_disk(path: Path) -> Iterator[Disk]:
    """Mount a disk with plenty of space, and take it away."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", path]
    if os.name != "posix" or os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def kept(folder: Path) -> dict[str, bytes]:
    """The files of a program that have their final names: locks, half files under temporary names, and TensorBoard's are none."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.suffix != ".lock"
        and not _is_temporary(path.relative_to(folder))
        and not path.name.startswith("events.out.tfevents")
        and path.name != "hparams.yaml"
    }


def temporary(folder: Path) -> list[str]:
    """What is left of writes that did not end."""
    names = [path.relative_to(folder) for path in folder.rglob("*")]
    return [name.as_posix() for name in names if _is_temporary(name)]


def _is_temporary(name: Path) -> bool:
    return any(TEMPORARY.fullmatch(part) for part in name.parts)


def unreadable(folder: Path) -> list[str]:
    """The files that do not load as what their names say, each with why.

    Lines are appended to a .jsonl file, and a killed process may leave a piece of the last one: the next takes it back.
    """
    found = []
    for name in kept(folder):
        try:
            _read(folder / name)
        except Exception as error:  # whatever a reader makes of a broken file
            found.append(f"{name}: {error!r}")
    return found


def _read(path: Path) -> None:
    match path.suffix:
        case ".wav" | ".flac":
            with soundfile.SoundFile(path) as file:
                assert len(file.read()) == file.frames > 0
        case ".json":
            json.loads(path.read_bytes())
        case ".jsonl":
            for line in path.read_bytes().splitlines(keepends=True):
                assert json.loads(line) if line.endswith(b"\n") else True
        case ".csv":
            with open(path, encoding="utf-8-sig", newline="") as file:
                header, *rows = csv.reader(file)
            assert header and all(len(row) == len(header) for row in rows)
        case ".yaml":
            assert yaml.safe_load(path.read_text())
        case ".png":
            with Image.open(path) as picture:
                picture.load()
        case ".html":
            assert path.read_text().rstrip().endswith("</html>")
        case ".md" | ".txt":
            assert path.read_text().endswith("\n")
        case ".npz":
            with np.load(path) as arrays:
                assert all(arrays[name] is not None for name in arrays)
        case ".ckpt" | ".bin":
            assert torch.load(path, weights_only=True)
        case ".safetensors":
            assert safetensors.torch.load_file(path)
        case ".tar":
            with tarfile.open(path) as tar:
                members = tar.getmembers()
            index = read_index(path) if index_path(path).exists() else None
            assert index is None or [member.name for member in index.members] == [member.name for member in members]
        case other:
            raise AssertionError(f"nobody knows how to read a {other} file")
