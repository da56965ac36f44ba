"""Ways to write a pickle: every format of torch, and NumPy's."""

import io
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def zipped(content: object) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path)


def legacy(content: object) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=False)


def legacy_tar(payload: object) -> Callable[[Path], object]:
    """torch's oldest format, whose first member is a pickle."""

    def write(path: Path) -> None:
        data = pickle.dumps(payload)
        with tarfile.open(path, "w") as tar:
            for name in ("storages", "tensors", "pickle"):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))

    return write


def raw(content: object) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(pickle.dumps(content))


def object_array(payload: object, archive: bool = False) -> bytes:
    file = io.BytesIO()
    array = np.array([payload], dtype=object)
    np.savez(file, array) if archive else np.save(file, array, allow_pickle=True)
    return file.getvalue()
