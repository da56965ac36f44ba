"""The recordings in a file, in a form that libsndfile reads whole.

libsndfile's number of frames is trusted where the format stores it. Elsewhere it is an estimate, a limit or an error; such a file
is read once, and this module makes copies in memory that store the right number.
"""

import io
from contextlib import suppress
from typing import BinaryIO

import soundfile

from apa_lightning.audio.chunks import LAYOUTS, chunk_recordings
from apa_lightning.audio.mpeg import mpeg_recordings, skip_id3
from apa_lightning.audio.ogg import ogg_recordings

_TOTAL_AT = 18  # of 8 bytes in a FLAC file, whose last 36 bits are the number of frames
_TOTAL = (1 << 36) - 1


def find_recordings(file: BinaryIO, size: int, name: str) -> list[bytes] | None:
    """The recordings in a file, one after another.

    Args:
        file: The file.
        size: Its size in bytes.
        name: Its name, for messages.

    Returns:
        Whole files; or None for one recording that libsndfile reads as it is.

    Raises:
        AudioError: If the file ends before the length that its header tells.
    """
    start = skip_id3(file)
    file.seek(start)
    magic = file.read(4)
    if magic == b"OggS":
        recordings = ogg_recordings(file)
        return recordings and [_with_total(one) if one[:4] == b"fLaC" else one for one in recordings]
    if magic == b"fLaC":
        file.seek(start + _TOTAL_AT)
        if int.from_bytes(file.read(8), "big") & _TOTAL:
            return None
        file.seek(start)
        return [_with_total(file.read())]
    if magic in LAYOUTS:
        if not start:
            return chunk_recordings(file, size, name)
        file.seek(start)
        untagged = file.read()  # libsndfile would lose as many bytes at the end as the tag has
        return chunk_recordings(io.BytesIO(untagged), len(untagged), name) or [untagged]
    return mpeg_recordings(file, size, start, name)


def _with_total(flac: bytes) -> bytes:
    """The FLAC file with its number of frames, counted where it is 0 for unknown (RFC 9639, section 8.2)."""
    facts = int.from_bytes(flac[_TOTAL_AT : _TOTAL_AT + 8], "big")
    if not facts & _TOTAL:
        facts += _count(flac)
    return flac[:_TOTAL_AT] + facts.to_bytes(8, "big") + flac[_TOTAL_AT + 8 :]


class _InOrder(soundfile.SoundFile):
    """A file that is read in order: soundfile would seek after each block, and fail after the last one of unknown length."""

    def seekable(self) -> bool:
        return False


def _count(flac: bytes) -> int:
    """The frames that can be decoded."""
    frames = 0
    with suppress(soundfile.LibsndfileError), _InOrder(io.BytesIO(flac)) as file:
        while block := len(file.read(1 << 10, dtype="float32")):
            frames += block
    return frames
