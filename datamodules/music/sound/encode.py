"""Encodes clips: FLAC, Ogg Vorbis, Ogg Opus or WAV, the same bytes every time."""

import io
import struct
import zlib
from typing import Literal

import numpy as np

from apa_lightning.errors import InputError

AudioFormat = Literal["flac", "ogg-vorbis", "ogg-opus", "wav"]
EXTENSIONS: dict[str, str] = {"flac": "flac", "ogg-vorbis": "ogg", "ogg-opus": "ogg", "wav": "wav"}
# Bytes per second that no 16 kHz mono clip exceeds: a shard of known size is planned before it is written.
MOST_BYTES: dict[str, int] = {"flac": 34_000, "ogg-vorbis": 9_000, "ogg-opus": 9_000, "wav": 33_000}
_SUBTYPES = {
    "flac": ("FLAC", "PCM_16"),
    "ogg-vorbis": ("OGG", "VORBIS"),
    "ogg-opus": ("OGG", "OPUS"),
    "wav": ("WAV", "PCM_16"),
}
_COMPRESSION = {"ogg-vorbis": 0.6, "ogg-opus": 0.94}


def encode(audio: np.ndarray, sample_rate: int, audio_format: AudioFormat, serial: int = 0) -> bytes:
    """Encodes mono audio.

    Args:
        audio: (S,) in [-1, 1]; rounded to 16 bits first, so that last-bit differences of floating point vanish.
        sample_rate: Hz.
        audio_format: "flac", "ogg-vorbis", "ogg-opus" or "wav".
        serial: Number of the Ogg stream in place of the encoder's random one.

    Raises:
        InputError: This soundfile cannot write the format.
    """
    import soundfile

    container, subtype = _SUBTYPES[audio_format]
    options = {"compression_level": _COMPRESSION[audio_format]} if audio_format in _COMPRESSION else {}
    samples = np.clip(np.round(audio * 32768), -32768, 32767).astype(np.int16)
    file = io.BytesIO()
    try:
        soundfile.write(file, samples, sample_rate, format=container, subtype=subtype, **options)
    except (ValueError, TypeError, soundfile.SoundFileError) as error:
        raise InputError(
            f"audio_format '{audio_format}' cannot be written by the installed soundfile ({error}). "
            "Update it (pip install -U soundfile) or choose flac."
        ) from None
    data = file.getvalue()
    return renumbered(data, serial) if container == "OGG" else data


def renumbered(data: bytes, serial: int) -> bytes:
    """An Ogg stream with another serial number, page checksums made anew (RFC 3533, section 6)."""
    out, at = bytearray(data), 0
    while at < len(out):
        if out[at : at + 4] != b"OggS":
            raise ValueError(f"no Ogg page at byte {at}")
        segments = out[at + 26]
        end = at + 27 + segments + sum(out[at + 27 : at + 27 + segments])
        out[at + 14 : at + 18] = struct.pack("<I", serial & 0xFFFFFFFF)
        out[at + 22 : at + 26] = bytes(4)
        out[at + 22 : at + 26] = struct.pack("<I", _checksum(out[at:end]))
        at = end
    return bytes(out)


_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _checksum(page: bytes | bytearray) -> int:
    """Ogg's CRC-32. It is zlib's with the bits of each byte in the other order, and without the inversions."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
