"""Ogg files that libsndfile reads in part or not at all: chained streams, and FLAC in Ogg.

Of chained streams (RFC 3533, section 4), such as two files joined with `cat` or the titles of an internet radio, libsndfile
reads the first or none.
"""

from collections.abc import Iterator
from typing import BinaryIO

_CHUNK = 1 << 16
_BEGINS = 2  # the flag of a stream's first page


def ogg_recordings(file: BinaryIO) -> list[bytes] | None:
    """The recordings of an Ogg file, FLAC in Ogg as native FLAC; None where libsndfile reads the file as it is."""
    links: list[list[tuple[int, int, int]]] = []
    holds_sound: list[bool] = []
    begins_before = False
    for start, body, end, begins, position in _pages(file):
        if not links or (begins and not begins_before):  # streams that are multiplexed begin together
            links.append([])
            holds_sound.append(False)
        links[-1].append((start, body, end))
        holds_sound[-1] |= position > 0
        begins_before = begins
    chained = len(links) > 1
    links = [link for link, sound in zip(links, holds_sound, strict=True) if sound]
    flac = [_read(file, link[0][1], link[0][2]).startswith((b"\x7fFLAC", b"fLaC")) for link in links]
    if not chained and not any(flac):
        return None
    return [
        _native_flac(file, link) if is_flac else _read(file, link[0][0], link[-1][2])
        for link, is_flac in zip(links, flac, strict=True)
    ]


def before_last_page(file: BinaryIO) -> int:
    """A frame from which libsndfile reads Vorbis at the right place to the end.

    A seek into the last page lands too late, by the frames that the stream's end cuts off the last block.
    """
    ends = [position for *_, position in _pages(file) if position > 0]
    return max(0, ends[-2] - 1) if len(ends) > 1 else 0


def _pages(file: BinaryIO) -> Iterator[tuple[int, int, int, bool, int]]:
    """Start, body and end of every page in bytes, whether a stream begins on it, and its last frame's number.

    Bytes between pages are left out.
    """
    at = 0
    while True:
        file.seek(at)
        head = file.read(27 + 255)
        if len(head) < 27:
            return
        if head[:4] != b"OggS":
            found = (head + file.read(_CHUNK)).find(b"OggS", 1)
            at += found if found > 0 else _CHUNK
            continue
        body = at + 27 + head[26]
        end = body + sum(head[27 : 27 + head[26]])
        yield at, body, end, bool(head[5] & _BEGINS), int.from_bytes(head[6:14], "little", signed=True)
        at = end


def _read(file: BinaryIO, start: int, end: int) -> bytes:
    file.seek(start)
    return file.read(end - start)


def _native_flac(file: BinaryIO, pages: list[tuple[int, int, int]]) -> bytes:
    """A native FLAC file is the packets of one in Ogg, without the mapping's own nine bytes in front."""
    packets = b"".join(_read(file, body, end) for _, body, end in pages)
    return packets[packets.index(b"fLaC") :]
