"""Modules of librosa, imported by one process at a time.

At their first import numba compiles them into a cache of files. Two processes that write it at once can leave one that crashes
every later reader (https://github.com/numba/numba/issues/10128; seen with numba 0.68.1), and a cluster starts many at once.
"""

import importlib
import os
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import librosa  # loads its modules when they are asked for

from apa_lightning.utils.atomic_files import file_lock


@cache
def librosa_part(name: str) -> Any:
    """The module ``librosa.NAME`` with all that it compiles at import: ``core``, ``feature``, ``onset``, ``beat``."""
    folder = Path(os.environ.get("NUMBA_CACHE_DIR") or librosa.__path__[0])
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):  # numba takes a folder of the user's then
        folder = Path(tempfile.gettempdir())
    with file_lock(folder / "librosa-compilation.lock"):
        for module in ("util.utils", "core.audio", "core.pitch"):  # what all others import, whole
            importlib.import_module(f"librosa.{module}")
        return importlib.import_module(f"librosa.{name}")
