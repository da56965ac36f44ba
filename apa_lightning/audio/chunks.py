"""Files of chunks (WAV, RF64, AIFF, CAF, W64) and AU: whether their header tells the length of the audio, and correctly.

A program that writes to a pipe, or is killed, cannot go back to write the length: it leaves 0 or the largest number of the field.
libsndfile reads some of these files to their end and others not at all. It returns a truncated file short, without an error.
"""

import io
from typing import BinaryIO, Literal, NamedTuple

from apa_lightning.audio.mpeg import mpeg_recordings
from apa_lightning.errors import AudioError

_UNKNOWN = 0x7F000000
"""If a file is shorter than such a length, its length is unknown: SoX writes 0x7F000000 and 0x7FFFF000, arecord 0x80000000,
ffmpeg 0xFFFFFFFF."""
_MPEG_FORMATS = (0x50, 0x55)


class _Layout(NamedTuple):
    """The form of a kind of file.

    Attributes:
        order: Byte order of the numbers.
        first: Place of the first chunk.
        audio: Name of the chunk that holds the audio; AU has no chunks and no name.
        inner: Bytes of this chunk before its audio.
        length_bytes: Size of a chunk's length.
        multiple: Chunks are padded to it.
        own_header: Bytes of name and length, where a chunk's length counts them.
    """

    order: Literal["little", "big"]
    first: int
    audio: bytes
    inner: int = 0
    length_bytes: int = 4
    multiple: int = 2
    own_header: int = 0


_WAV = _Layout("little", 12, b"data")
_W64_DATA = bytes.fromhex("64617461f3acd3118cd100c04f8edb8a")
LAYOUTS = {
    b"RIFF": _WAV,
    b"RF64": _WAV,
    b"BW64": _WAV,
    b"RIFX": _WAV._replace(order="big"),
    b"FORM": _Layout("big", 12, b"SSND", inner=8),
    b"caff": _Layout("big", 8, b"data", inner=4, length_bytes=8, multiple=1),
    b"riff": _Layout("little", 40, _W64_DATA, length_bytes=8, multiple=8, own_header=24),
    b".snd": _Layout("big", 4, b""),
    b"dns.": _Layout("little", 4, b""),
}


class _Chunk(NamedTuple):
    """A chunk: where its content and its length are, and the length of its content."""

    start: int
    length_at: int
    length: int


def chunk_recordings(file: BinaryIO, size: int, name: str) -> list[bytes] | None:
    """The recording of a file that does not know its length, as a file that does.

    Args:
        file: The file.
        size: Its size in bytes.
        name: Its name, for messages.

    Returns:
        One whole file; or None where libsndfile reads the file as it is.

    Raises:
        AudioError: If the file ends before the length of its audio.
    """
    file.seek(0)
    magic = file.read(4)
    layout = LAYOUTS[magic]
    chunks = _chunks(file, layout) if layout.audio else {b"": _au(file, layout)}
    if layout.audio not in chunks:
        return None
    start, length_at, length = chunks[layout.audio]
    start, length = start + layout.inner, length - layout.inner
    if b"ds64" in chunks and length == 0xFFFFFFFF:
        length = _number(file, chunks[b"ds64"].start + 8, 8, layout)
    available = size - start
    if length <= 0:
        unknown = available > 0 and not _is_chunk(file, start, size, layout)
    else:
        unknown = length > available and length + layout.inner + layout.own_header >= _UNKNOWN
    if length > available and not unknown:
        raise AudioError(
            f"{name}: truncated: the header promises {length} bytes of audio, {available} are there. "
            "Copy or export the file again."
        )
    if b"fmt " in chunks and _number(file, chunks[b"fmt "].start, 2, layout) in _MPEG_FORMATS:
        file.seek(start)
        stream = file.read(available if unknown else length)
        return mpeg_recordings(io.BytesIO(stream), len(stream), 0, name)
    if not unknown and magic != b"BW64":
        return None
    file.seek(0)
    mended = bytearray(file.read())
    if magic in (b"RF64", b"BW64"):
        mended[:4] = b"RIFF"
    known = (available if unknown else length) + layout.inner + layout.own_header
    mended[length_at : length_at + layout.length_bytes] = known.to_bytes(layout.length_bytes, layout.order)
    return [bytes(mended)]


def _chunks(file: BinaryIO, layout: _Layout) -> dict[bytes, _Chunk]:
    """The chunks by name, as far as the one with the audio."""
    chunks: dict[bytes, _Chunk] = {}
    at = layout.first
    while layout.audio not in chunks:
        file.seek(at)
        name = file.read(len(layout.audio))
        length_at = at + len(name)
        start = length_at + layout.length_bytes
        content = file.read(layout.length_bytes)
        if len(content) < layout.length_bytes:
            break
        length = int.from_bytes(content, layout.order) - layout.own_header
        chunks[name] = _Chunk(start, length_at, length)
        at = start + -(-max(length, 0) // layout.multiple) * layout.multiple
    return chunks


def _au(file: BinaryIO, layout: _Layout) -> _Chunk:
    """The audio of an AU file: its header says where it starts, then how long it is."""
    return _Chunk(_number(file, 4, 4, layout), 8, _number(file, 8, 4, layout))


def _is_chunk(file: BinaryIO, at: int, size: int, layout: _Layout) -> bool:
    """Whether another chunk may start here: its name can be read, and it fits into the file."""
    file.seek(at)
    name = file.read(4)
    length = _number(file, at + len(layout.audio), layout.length_bytes, layout)
    return len(name) == 4 and name.isascii() and name.decode().isprintable() and length <= size - at


def _number(file: BinaryIO, at: int, size: int, layout: _Layout) -> int:
    file.seek(at)
    return int.from_bytes(file.read(size), layout.order)
