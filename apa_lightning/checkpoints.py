"""Trainer checkpoints on disk: which is the newest, and whether a file is one."""

import glob
import io
import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from apa_lightning.errors import InputError
from apa_lightning.files import atomic_path
from apa_lightning.sources import first_line


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written as whole files: its own go through the system's temporary folder, which may be
    another disk, and a full one is reported without the file's name."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        encoded = io.BytesIO()  # torch turns a full disk into an error of its own; writing bytes does not
        torch.save(checkpoint, encoded)
        with atomic_path(path) as temporary:
            temporary.write_bytes(encoded.getbuffer())


def last_checkpoint(folder: str | os.PathLike) -> Path:
    """The newest ``checkpoints/last*.ckpt`` in ``folder`` or at most three folders below it; hidden folders are left out.

    Raises:
        FileNotFoundError: there is none.
        InputError: it is damaged; see :func:`check_checkpoint`.
    """
    patterns = ("*/" * depth + "checkpoints/last*.ckpt" for depth in range(4))
    found = [Path(folder, name) for pattern in patterns for name in glob.glob(pattern, root_dir=folder)]
    if not found:
        raise FileNotFoundError(
            f"ckpt_path: 'last', but there is no last.ckpt in a folder 'checkpoints' below {folder}. "
            "Train first, or give the file."
        )
    newest = max(found, key=lambda path: path.stat().st_mtime)
    rank_zero_info(f"ckpt_path: 'last' is {newest}")
    check_checkpoint(newest)
    return newest


def check_checkpoint(path: str | os.PathLike) -> None:
    """Raise :class:`InputError` unless ``path`` is a whole Trainer checkpoint that loads without executing anything.

    Raises:
        FileNotFoundError: no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"ckpt_path: {path} does not exist. Give a .ckpt file, or 'last'.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"ckpt_path: {path} holds objects other than tensors and plain values, or is damaged. It was not executed."
        ) from None
    except (RuntimeError, EOFError, ValueError, OSError, KeyError) as error:
        raise InputError(f"ckpt_path: {path} is damaged or no checkpoint ({first_line(error)}).") from None
    if not isinstance(content, dict) or not {"state_dict", "loops"} <= content.keys():
        raise InputError(f"ckpt_path: {path} is no Trainer checkpoint. For an adapter file use --model.adapter.")
