"""Writing WebDataset shards with an index: the same samples always give the same bytes."""

import hashlib
import io
import json
import re
import tarfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import atomic_path, remove_leftovers
from datamodules.shards.index import AUDIO_EXTENSIONS, Member, ShardIndex, index_path, write_index
from datamodules.shards.metadata import check_metadata
from datamodules.shards.samples import BadSample

_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")  # 90 + ".flac" stays inside ustar's 100 characters
_RESERVED = re.compile(r"__[^/]*__")  # webdataset takes such names for its own and drops them


class ShardWriter:
    """Writes samples into numbered tar files, starting a new one when the current one is full.

    A shard appears under its name only when it is complete and synced, and its index after it, so a shard with an
    index is finished. Leaving the `with` block through an exception drops the shard that is being written and keeps
    those before it. Members carry no time, owner or other trace of the machine.

    Args:
        pattern: Path with one number field, such as `out/train-{:06d}.tar`.
        max_bytes: A shard is closed before it would grow beyond this. One larger sample gets a shard of its own.
        max_samples: A shard holds at most this many samples.
        start: Number of the first shard.
        overwrite: Replace finished shards of the same name; otherwise they are refused.

    Raises:
        InputError: The pattern has no number field or does not end in `.tar`; a limit is below 1.
    """

    def __init__(
        self,
        pattern: str | Path,
        max_bytes: int = 500_000_000,
        max_samples: int = 10_000,
        start: int = 0,
        overwrite: bool = False,
    ) -> None:
        self._pattern = str(pattern)
        if not self._pattern.endswith(".tar") or self._name(0) == self._name(1):
            raise InputError(
                f"pattern '{pattern}' must end in .tar and hold one number field, such as 'out/train-{{:06d}}.tar'."
            )
        for name, value, least in (("max_bytes", max_bytes, 1), ("max_samples", max_samples, 1), ("start", start, 0)):
            if value < least:
                raise InputError(f"{name} is {value}; it must be at least {least}.")
        self._max_bytes, self._max_samples, self._overwrite = max_bytes, max_samples, overwrite
        self._number = start
        self._keys: set[str] = set()
        self._open: _OpenShard | None = None
        self.shards: list[Path] = []
        """Paths of the shards finished so far."""

    def _name(self, number: int) -> Path:
        try:
            return Path(self._pattern.format(number))
        except (IndexError, KeyError, ValueError) as error:
            raise InputError(f"pattern '{self._pattern}' is no valid pattern ({error}).") from None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._open is not None:
            self._open.discard()
            self._open = None

    def write(self, key: str, audio: bytes, extension: str, metadata: dict[str, Any]) -> None:
        """Add one sample.

        Args:
            key: Letters, digits, `_` and `-`; new for this writer.
            audio: The encoded audio file's bytes.
            extension: One of flac, wav, ogg, mp3.
            metadata: At least `labels`, a list of at least one AudioSet display name; optionally `caption` and more.

        Raises:
            InputError: One of these is not so, naming it, or a finished shard of this name exists.
        """
        files = {extension: bytes(audio), "json": _checked_metadata(key, metadata)}
        if not isinstance(key, str) or not _KEY.fullmatch(key) or _RESERVED.fullmatch(key):
            raise InputError(
                f"key {key!r} cannot name a sample: use up to 90 of A-Z a-z 0-9 _ - and not the form '__name__'."
            )
        if key in self._keys:
            raise InputError(f"key '{key}' was written before; keys must be unique.")
        if extension not in AUDIO_EXTENSIONS:
            raise InputError(f"extension '{extension}' of '{key}' is none of {', '.join(AUDIO_EXTENSIONS)}.")
        if not audio:
            raise InputError(f"the audio of '{key}' is empty.")

        if self._open is not None:
            grown = self._open.bytes_with(files.values())
            if self._open.samples >= self._max_samples or grown > self._max_bytes:
                self._finish()
        if self._open is None:
            self._open = _OpenShard(self._next_path())
        self._open.add(key, files)
        self._keys.add(key)

    def close(self) -> None:
        """Finish the shard that is being written. Without any sample no file is made."""
        self._finish()

    def _next_path(self) -> Path:
        path = self._name(self._number)
        if not self._overwrite and index_path(path).exists():
            raise InputError(
                f"shard '{path}' exists already and is finished. Choose another folder or start number, or overwrite."
            )
        return path

    def _finish(self) -> None:
        if self._open is None:
            return
        shard, self._open = self._open, None
        shard.finish()
        self.shards.append(shard.path)
        self._number += 1


class _OpenShard:
    """One tar file that is being written under a temporary name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples = 0
        self._members: list[Member] = []
        for file in (path, index_path(path)):
            remove_leftovers(file)  # of a killed run: up to a whole shard
        self._stack = ExitStack()
        temporary = self._stack.enter_context(atomic_path(path, outdates=index_path(path)))
        self._file = self._stack.enter_context(open(temporary, "wb"))  # noqa: SIM115 - the stack closes it
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)

    def bytes_with(self, files: Any) -> int:
        """The size of the finished tar if these members were added."""
        blocks = sum(2 + (len(data) - 1) // tarfile.BLOCKSIZE for data in files)  # a header, then the data rounded up
        size = self._tar.offset + (blocks + 2) * tarfile.BLOCKSIZE
        return -(-size // tarfile.RECORDSIZE) * tarfile.RECORDSIZE

    def add(self, key: str, files: dict[str, bytes]) -> None:
        try:
            for extension, data in files.items():
                info = tarfile.TarInfo(f"{key}.{extension}")  # TarInfo's defaults: mtime 0, uid and gid 0, mode 0644
                info.size = len(data)
                offset = self._tar.offset + tarfile.BLOCKSIZE
                self._tar.addfile(info, io.BytesIO(data))
                self._members.append(Member(key, info.name, offset, len(data), hashlib.sha256(data).hexdigest()))
        except BaseException as error:
            self.discard()
            if isinstance(error, OSError):  # a full disk names no file
                error.filename = str(self.path)
            raise
        self.samples += 1

    def finish(self) -> None:
        with self._stack:
            self._tar.close()
            size = self._file.tell()
        write_index(self.path, ShardIndex(self.path.name, size, self.samples, tuple(self._members)))

    def discard(self) -> None:
        """Close and remove the temporary file."""

        class _Discard(Exception):
            pass

        with suppress(_Discard), self._stack:
            raise _Discard


def _checked_metadata(key: str, metadata: dict[str, Any]) -> bytes:
    try:
        checked = check_metadata(metadata if isinstance(metadata, dict) else {})
        return json.dumps(checked, ensure_ascii=False, allow_nan=False, sort_keys=True).encode()
    except BadSample as bad:
        raise InputError(f"metadata of '{key}': {bad.detail}.") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata of '{key}' cannot be written as JSON: {error}.") from None
