"""Locates the members of a tar: from its index, or of a local one from its headers."""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import urlsplit, urlunsplit

from urllib3.exceptions import HTTPError

from apa_lightning.errors import InputError
from datamodules.remote import RefusedError, WholeOnlyError, open_stream, read_range
from datamodules.shards.index import Member, ShardIndex, parse_index, read_index
from datamodules.shards.samples import LOST, Fault, Group, group_members

_WAY_OUT = "Write it again, or leave it out."


def fetch_index(url: str) -> ShardIndex | None:
    """Read the index next to a shard on a server; None if there is none, or a page of the server's own in its place.

    Raises:
        OSError: If the server cannot be reached, stays busy or breaks off.
    """
    parts = urlsplit(url)
    path = PurePosixPath(parts.path)
    index_url = urlunsplit(parts._replace(path=str(path.with_suffix(".index.json"))))
    try:
        with open_stream(index_url) as stream:
            text = b"".join(iter(lambda: stream.read(1 << 20), b""))
        return parse_index(text, index_url, path.name)
    except (RefusedError, InputError):
        return None
    except HTTPError as error:
        raise OSError(str(error)) from None


class NotIndexedError(Exception):
    """A shard on a server can only be streamed, and why."""


def locate_remote_samples(url: str) -> Iterator[Group[Member] | Fault]:
    """Yield the samples of a shard on a server, as `locate_samples` does, from the index next to it.

    Raises:
        NotIndexedError: If there is no index, or the server sends only whole files.
        InputError: If the server cannot be reached, or the shard is not the one that its index describes.
    """
    try:
        if (index := fetch_index(url)) is None:
            raise NotIndexedError(f"there is no index next to '{url}'")
        try:
            _, size = read_range(url, 0, 1)
        except RefusedError as error:
            keys = dict.fromkeys(member.key for member in index.members)
            yield from (Fault(url, key, "shard cannot be read", str(error)) for key in keys)
            return
        yield from _from_index(url, index, lambda start, length: read_range(url, start, start + length)[0], size)
    except WholeOnlyError as error:
        raise NotIndexedError(f"'{url}': {error}") from None
    except OSError as error:
        raise InputError(
            f"shard '{url}' cannot be read: {error}. Start again when its server can be reached."
        ) from None


def locate_samples(shard: Path) -> Iterator[Group[Member] | Fault]:
    """Yield the samples of a local shard, in their order, and a `Fault` for each that cannot be read.

    With an index, headers are not needed, so damage to them loses nothing. Without one the headers are read as
    `tarfile` reads them, but a damaged header is reported and the search continues behind it.

    Raises:
        FileNotFoundError: If there is no such shard.
        InputError: If it is empty or not a tar file, or its index does not belong to it.
    """
    if not shard.exists():
        raise FileNotFoundError(f"shard '{shard}' does not exist.")
    if not shard.is_file():
        raise InputError(
            f"shard '{shard}' is a folder, not a file. Give the files in it, for example {shard}/train-*.tar."
        )
    with open(shard, "rb") as file:
        if (size := file.seek(0, 2)) == 0:
            raise InputError(f"shard '{shard}' is empty (0 bytes). {_WAY_OUT}")
        index = read_index(shard)

        def read(start: int, length: int) -> bytes:
            file.seek(start)
            return file.read(length)

        if index:
            yield from _from_index(str(shard), index, read, size)
            return
        found = group_members(str(shard), _walk(shard, file, size))
        if (first := next(found, None)) is None:
            raise InputError(_no_samples(shard))
        yield first
        yield from found


def _no_samples(shard: str | Path) -> str:
    return f"shard '{shard}' holds no samples. {_WAY_OUT}"


def _header(header: bytes) -> tarfile.TarInfo | None:
    try:
        return tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None


def _from_index(
    shard: str, index: ShardIndex, read: Callable[[int, int], bytes], size: int
) -> Iterator[Group[Member] | Fault]:
    """Samples by an index; `read` reads (start, length) of the shard, which has `size` bytes."""
    groups = list(group_members(shard, ((m.name, True, m) for m in index.members)))
    if not groups:
        raise InputError(_no_samples(shard))
    if len({g.key for g in groups}) != index.samples:
        raise InputError(f"the index of '{shard}' lists other samples than its count says. Write the shard again.")
    ends = index.members[:1] + index.members[-1:]
    block = tarfile.BLOCKSIZE
    headers = [_header(read(m.offset - block, block)) for m in ends if m.offset >= block]
    if ends and not any(h and h.name == m.name and h.size == m.size for h, m in zip(headers, ends, strict=False)):
        raise InputError(f"shard '{shard}' is not the tar that its index describes. {_WAY_OUT}")
    if size > index.bytes:
        yield Fault(shard, "", "shard longer than its index", f"{size} bytes, {index.bytes} are read", kept=True)
    for item in groups:
        if isinstance(item, Group) and max(m.offset + m.size for m in item.members) > size:
            yield Fault(shard, item.key, LOST, f"the shard ends at byte {size} of {index.bytes}")
        else:
            yield item


def _walk(shard: Path, file: BinaryIO, size: int) -> Iterator[tuple[str, bool, Member] | Fault]:
    """Yield the members of a tar without an index, and a `Fault` for each part without a readable header."""
    file.seek(0)
    try:
        tar = tarfile.TarFile(fileobj=file)
    except tarfile.TarError as error:
        raise InputError(f"shard '{shard}' is not an uncompressed tar file ({error}). {_WAY_OUT}") from None
    tar.ignore_zeros = True  # from here on a damaged header is skipped instead of ending the search

    def lost(start: int, stop: int, why: str) -> Fault:
        return Fault(str(shard), "", LOST, f"bytes {start} to {stop}: {why}")

    end = 0
    while True:
        try:
            info = tar.next()
        except tarfile.TarError as error:
            yield lost(end, size, str(error))
            return
        if info is None:
            break
        if not _is_zero(file, end, info.offset):
            yield lost(end, info.offset, "no readable header")
        end = tar.offset
        tar.members = []  # type: ignore[attr-defined]  # or a shard's headers pile up in memory
        if end > size:
            yield lost(info.offset, size, f"the tar ends inside '{info.name}'")
            return
        if not info.isdir() and not is_meta(info.name):
            regular = info.isreg() and not info.issparse()
            yield info.name, regular, Member("", info.name, info.offset_data, info.size)
    if end >= size:
        yield lost(end, size, "no end mark: the tar was cut, and samples may be missing")
    elif not _is_zero(file, end, size):
        yield lost(end, size, "no readable header")


def is_meta(name: str) -> bool:
    """Whether a name is that of webdataset's own members (`__name__`) or macOS's shadow files (`._name`)."""
    last = name.rpartition("/")[2]
    return last.startswith("._") or (last.startswith("__") and last.endswith("__"))


def _is_zero(file: BinaryIO, start: int, end: int) -> bool:
    file.seek(start)
    while start < end and (block := file.read(min(1 << 20, end - start))):
        if block.count(0) != len(block):
            return False
        start += len(block)
    return True
