"""Atomic writing of files, and a lock for work that only one process may do at a time."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

RANDOM_BYTES = 4


@contextlib.contextmanager
def atomic_path(
    path: str | os.PathLike, outdates: str | os.PathLike | None = None, sole_writer: bool = False
) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it to ``path`` if the block succeeds, remove it otherwise.

    The old file stays whole on any failure; the new one is on the disk when this returns. Missing parent folders are made.

    Args:
        path: File to write.
        outdates: File that the new one makes worthless; it is removed just before the renaming.
        sole_writer: Whether no other process can be writing ``path``. Then the temporary files of killed processes are
            removed first.

    Yields:
        The temporary path, an empty file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if sole_writer:
        remove_leftovers(path)
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(RANDOM_BYTES)}.tmp{path.suffix}")
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        if outdates is not None:
            Path(outdates).unlink(missing_ok=True)
        os.replace(temporary, path)
    except BaseException as error:
        if isinstance(error, OSError):
            # The error of a full disk names no file, and users do not know the temporary one.
            error.filename = str(path)
        with contextlib.suppress(OSError):  # the first error is the one to report
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_file(path: str | os.PathLike, content: str | bytes | memoryview, sole_writer: bool = False) -> None:
    """Write a whole file atomically, text as UTF-8 (see :func:`atomic_path`)."""
    with atomic_path(path, sole_writer=sole_writer) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def remove_leftovers(path: str | os.PathLike) -> None:
    """Remove the temporary files that killed processes left of ``path``, or of any file in it if it is a folder.

    No other process may be writing there.
    """
    path = Path(path)
    folder, stem, suffix = path.parent, re.escape(path.stem), re.escape(path.suffix)
    if path.is_dir():
        folder, stem, suffix = path, ".+", r"(\.[^.]*)?"
    leftover = re.compile(rf"\.{stem}\.[0-9a-f]{{{2 * RANDOM_BYTES}}}\.tmp{suffix}")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(folder):
            if leftover.fullmatch(name):
                (folder / name).unlink(missing_ok=True)


@contextlib.contextmanager
def file_lock(path: str | os.PathLike, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file ``path`` inside the block and remove it afterwards. The system releases it when a process dies.

    Args:
        path: The lock file.
        wait: Whether to wait for another process that holds it.

    Yields:
        Whether it is held; False if another process holds it and ``wait`` is not set.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=wait, poll_interval=0.2)
    except Timeout:
        yield False
        return
    try:
        yield True
        Path(path).unlink(missing_ok=True)  # while it is held: a process that waits for it then looks at what is done
    finally:
        lock.release()


def _sync_folder(folder: Path) -> None:
    """Make a renaming survive a power failure, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
