"""Writes WebDataset shards with an index: the same samples always give the same bytes."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import atomic_path
from datamodules.shards.index import AUDIO_EXTENSIONS, Member, ShardIndex, index_path, write_index
from datamodules.shards.metadata import check_metadata
from datamodules.shards.samples import BadSample

_KEY = re.compile(r"[A-Za-z0-9_-]{1,90}")  # 90 + ".flac" stays inside ustar's 100 characters
_PAIR_KEY = 88  # as 88 + ".prompt.flac" does
_RESERVED = re.compile(r"__[^/]*__")  # webdataset drops members of such names as its own


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
        InputError: If the pattern has no number field or does not end in `.tar`, or a limit is below 1.
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
        if not self._pattern.endswith(".tar") or self._path(0) == self._path(1):
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
        self._stack = ExitStack()  # holds the open shard
        self.shards: list[Path] = []
        """Paths of the shards finished so far."""

    def _path(self, number: int) -> Path:
        try:
            return Path(self._pattern.format(number))
        except (IndexError, KeyError, ValueError) as error:
            raise InputError(f"pattern '{self._pattern}' is not valid ({error}).") from None

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._stack.__exit__(kind, error, trace)

    def write(
        self, key: str, audio: bytes, extension: str, metadata: dict[str, Any], prompt: bytes | None = None
    ) -> None:
        """Add one sample.

        Args:
            key: Letters, digits, `_` and `-`; new for this writer.
            audio: The encoded audio file's bytes.
            extension: One of `AUDIO_EXTENSIONS`.
            metadata: At least `labels` (see `check_metadata`); optionally `caption` and more.
            prompt: Bytes of an audio prompt other than `audio`, in the same format; None: `audio` is its own prompt.

        Raises:
            InputError: If one of these is not valid (it is named), or a finished shard of this name exists.
        """
        files = {extension: bytes(audio)}
        if prompt is not None:
            files[f"prompt.{extension}"] = bytes(prompt)
        files["json"] = _encode_metadata(key, metadata)
        if not isinstance(key, str) or not _KEY.fullmatch(key) or _RESERVED.fullmatch(key):
            raise InputError(
                f"key {key!r} cannot name a sample: use up to 90 of A-Z a-z 0-9 _ - and not the form '__name__'."
            )
        if key in self._keys:
            raise InputError(f"key '{key}' was written before; keys must be unique.")
        if extension not in AUDIO_EXTENSIONS:
            raise InputError(f"extension '{extension}' of '{key}' is not one of {', '.join(AUDIO_EXTENSIONS)}.")
        if not audio or prompt == b"":
            raise InputError(f"the {'audio prompt' if audio else 'audio'} of '{key}' is empty.")
        if prompt is not None and len(key) > _PAIR_KEY:
            raise InputError(
                f"key '{key}' is too long for a sample with an audio prompt: use up to {_PAIR_KEY} characters."
            )

        if self._open is not None:
            grown = self._open.bytes_with(files.values())
            if self._open.samples >= self._max_samples or grown > self._max_bytes:
                self.close()
        if self._open is None:
            path = self._path(self._number)
            if not self._overwrite and index_path(path).exists():
                raise InputError(
                    f"shard '{path}' exists already and is finished. Choose another folder or start number, or overwrite."
                )
            self._open = self._stack.enter_context(_new_shard(path))
        self._open.add(key, files)
        self._keys.add(key)

    def close(self) -> None:
        """Finish the shard that is being written; without any sample no file is made."""
        if self._open is not None:
            self._open = None
            self._stack.close()
            self.shards.append(self._path(self._number))
            self._number += 1


class _OpenShard:
    """A tar file that is being written, with the members written so far."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.samples = 0
        self.members: list[Member] = []

    def bytes_with(self, files: Iterable[bytes]) -> int:
        """The size of the finished tar if these members were added."""
        blocks = sum(2 + (len(data) - 1) // tarfile.BLOCKSIZE for data in files)  # a header, then the data rounded up
        size = self._tar.offset + (blocks + 2) * tarfile.BLOCKSIZE
        return -(-size // tarfile.RECORDSIZE) * tarfile.RECORDSIZE

    def add(self, key: str, files: dict[str, bytes]) -> None:
        for extension, data in files.items():
            info = tarfile.TarInfo(f"{key}.{extension}")  # TarInfo's defaults: mtime 0, uid and gid 0, mode 0644
            info.size = len(data)
            offset = self._tar.offset + tarfile.BLOCKSIZE
            self._tar.addfile(info, io.BytesIO(data))
            self.members.append(Member(key, info.name, offset, len(data), hashlib.sha256(data).hexdigest()))
        self.samples += 1


@contextmanager
def _new_shard(path: Path) -> Iterator[_OpenShard]:
    """Write a shard under a temporary name; at the end of the block it gets its name, and then its index."""
    with (
        atomic_path(path, outdates=index_path(path), sole_writer=True) as temporary,
        open(temporary, "wb") as file,
        tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        shard = _OpenShard(tar)
        yield shard
    write_index(path, ShardIndex(path.name, path.stat().st_size, shard.samples, tuple(shard.members)))


def _encode_metadata(key: str, metadata: dict[str, Any]) -> bytes:
    try:
        checked = check_metadata(metadata if isinstance(metadata, dict) else {})
        return json.dumps(checked, ensure_ascii=False, allow_nan=False, sort_keys=True).encode()
    except BadSample as bad:
        raise InputError(f"metadata of '{key}': {bad.detail}.") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"metadata of '{key}' cannot be written as JSON: {error}.") from None
