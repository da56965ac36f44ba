"""Encoding of clips as FLAC, Ogg Vorbis, Ogg Opus or WAV, the same bytes every time."""

import io
import struct
import zlib
from typing import Any, Literal, NamedTuple

import numpy as np

from apa_lightning.errors import InputError

AudioFormat = Literal["flac", "ogg-vorbis", "ogg-opus", "wav"]


class Coding(NamedTuple):
    """How a format is written."""

    extension: str
    most_bytes: int  # Per second of 16 kHz mono at most: a shard of known size is planned before it is written
    options: dict[str, Any]  # Arguments of soundfile.write


CODINGS: dict[str, Coding] = {
    "flac": Coding("flac", 34_000, {"format": "FLAC", "subtype": "PCM_16"}),
    "ogg-vorbis": Coding("ogg", 9_000, {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.6}),
    "ogg-opus": Coding("ogg", 9_000, {"format": "OGG", "subtype": "OPUS", "compression_level": 0.94}),
    "wav": Coding("wav", 33_000, {"format": "WAV", "subtype": "PCM_16"}),
}
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def encode(audio: np.ndarray, sample_rate: int, audio_format: AudioFormat, serial: int = 0) -> bytes:
    """Encode mono audio.

    Args:
        audio: (S,) in [-1, 1]; rounded to 16 bits first, so that last-bit differences of floating point vanish.
        sample_rate: Sample rate in Hz.
        audio_format: "flac", "ogg-vorbis", "ogg-opus" or "wav".
        serial: Number of the Ogg stream in place of the encoder's random one.

    Raises:
        InputError: If this soundfile cannot write the format.
    """
    import soundfile

    coding, file = CODINGS[audio_format], io.BytesIO()
    samples = np.clip(np.round(audio * 32768), -32768, 32767).astype(np.int16)
    try:
        soundfile.write(file, samples, sample_rate, **coding.options)
    except (ValueError, TypeError, soundfile.SoundFileError) as error:
        raise InputError(
            f"audio_format '{audio_format}' cannot be written by the installed soundfile ({error}). "
            "Update it (pip install -U soundfile) or choose flac."
        ) from None
    return renumbered(file.getvalue(), serial) if coding.extension == "ogg" else file.getvalue()


def renumbered(data: bytes, serial: int) -> bytes:
    """An Ogg stream with another serial number and new page checksums (RFC 3533, section 6)."""
    out, at = bytearray(data), 0
    while at < len(out):
        if out[at : at + 4] != b"OggS":
            raise ValueError(f"no Ogg page at byte {at}")
        segments = out[at + 26]
        end = at + 27 + segments + sum(out[at + 27 : at + 27 + segments])
        out[at + 14 : at + 18] = struct.pack("<I", serial & 0xFFFFFFFF)
        out[at + 22 : at + 26] = bytes(4)
        # Ogg's CRC-32 is zlib's with the bits of each byte in the other order, and without the inversions.
        crc = zlib.crc32(out[at:end].translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
        out[at + 22 : at + 26] = struct.pack("<I", int(f"{crc:032b}"[::-1], 2))
        at = end
    return bytes(out)
