"""Trainer checkpoints on disk: which is the newest, and whether a file is one."""

import glob
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.pretrained import first_line


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, written as whole files.

    Its own go through the system's temporary folder, which may be another disk, and a full one is reported without the
    file's name.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        encoded = io.BytesIO()  # torch turns a full disk into an error of its own; writing bytes does not
        torch.save(checkpoint, encoded)
        write_file(path, encoded.getbuffer(), sole_writer=True)


def last_checkpoint(folder: str | os.PathLike) -> Path:
    """The newest whole checkpoint of the runs in ``folder`` and at most three folders below it.

    That is ``checkpoints/last*.ckpt``, or what SLURM's requeueing left as ``hpc_ckpt_*.ckpt``; where none is whole, any other
    file in ``checkpoints``. Damaged ones are warned of and passed over; hidden folders are left out.

    Raises:
        FileNotFoundError: there is none.
        InputError: all are damaged; see :func:`check_checkpoint`.
    """

    def found(*patterns: str) -> list[Path]:
        paths = (Path(folder, name) for pattern in patterns for name in glob.glob(pattern, root_dir=folder))
        return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)

    places = ["*/" * depth + "checkpoints/" for depth in range(4)]
    wanted = found(*(f"{place}last*.ckpt" for place in places), "hpc_ckpt_*.ckpt")
    others = [path for path in found(*(f"{place}*.ckpt" for place in places)) if path not in wanted]
    if not wanted + others:
        raise FileNotFoundError(
            f"ckpt_path: 'last', but there is no last.ckpt in a folder 'checkpoints' below {folder}. "
            "Train first, or give the file."
        )
    damaged: list[InputError] = []
    for path in wanted + others:
        try:
            check_checkpoint(path)
        except InputError as error:
            damaged.append(error)
        else:
            for passed_over in damaged:
                rank_zero_warn(f"{passed_over} It is passed over.")
            rank_zero_info(f"ckpt_path: 'last' is {path}")
            return path
    raise damaged[0]


def run_of(checkpoint: Path) -> Path | None:
    """The folder of the run that wrote a whole checkpoint: the one around ``checkpoints``, or what a SLURM checkpoint says."""
    if checkpoint.parent.name == "checkpoints":
        return checkpoint.parent.parent
    states = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True).get("callbacks", {}).values()
    folders = (state.get("dirpath") for state in states if isinstance(state, dict))
    return next((Path(folder).parent for folder in folders if folder), None)


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
    except Exception as error:  # bytes of another format are read as commands of a pickle, whose errors are of any kind
        why = first_line(error) if zipfile.is_zipfile(path) else "it is not a whole zip archive, which torch saves"
        raise InputError(f"ckpt_path: {path} is damaged or no checkpoint ({why}).") from None
    if not isinstance(content, dict) or not {"state_dict", "loops"} <= content.keys():
        raise InputError(f"ckpt_path: {path} is not a Trainer checkpoint. For an adapter file use --model.adapter.")
