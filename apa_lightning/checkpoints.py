"""Trainer checkpoints on disk: which is the newest, and whether a file is one."""

import os
import pickle
from pathlib import Path

import torch

from apa_lightning.errors import InputError
from apa_lightning.sources import first_line


def last_checkpoint(folder: str | os.PathLike) -> Path:
    """The newest ``last*.ckpt`` below ``folder``.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(Path(folder).rglob("last*.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(
            f"ckpt_path: 'last', but there is no last.ckpt below {folder}. Train first, or give the file."
        )
    return found[-1]


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
