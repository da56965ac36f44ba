"""Recordings on the disk, and recordings that cannot be read or used, each with the words of its message."""

import struct
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
import torch
from shard_tools import RATE, encode

TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype(np.float32)


def tone(path: Path, seconds: float = 1.0, frequency: float = 440.0, rate: int = RATE, **options) -> Path:
    """Write a decaying tone."""
    time = np.arange(round(seconds * rate)) / rate
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.4 * np.sin(2 * np.pi * frequency * time) * np.exp(-time), rate, **options)
    return path


def wav_bytes(tmp_path, samples=TONE, rate=16_000, subtype="PCM_16") -> bytes:
    soundfile.write(tmp_path / "x.wav", samples, rate, subtype=subtype)
    return (tmp_path / "x.wav").read_bytes()


def huge_flac(tmp_path) -> bytes:
    """A FLAC whose header claims 2^36 - 1 frames."""
    soundfile.write(tmp_path / "x.flac", TONE, 16_000)
    content = bytearray((tmp_path / "x.flac").read_bytes())
    # STREAMINFO starts at byte 8; the 36-bit frame count is the low half of byte 13 of it, and the next four.
    content[8 + 13] |= 0x0F
    content[8 + 14 : 8 + 18] = b"\xff\xff\xff\xff"
    return bytes(content)


def header(rate: int = 16_000, channels: int = 1, data: bytes = b"\0" * 64) -> bytes:
    block = struct.pack("<HHIIHH", 1, channels, rate, (rate * channels * 2) & 0xFFFFFFFF, (channels * 2) & 0xFFFF, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(block)) + block + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


BROKEN = {
    "empty": (lambda t: b"", "empty"),
    "random": (lambda t: np.random.default_rng(0).bytes(4096), "not a readable audio file"),
    "html": (lambda t: b"<html><body>404</body></html>", "not a readable audio file"),
    "short_wav": (lambda t: wav_bytes(t)[:-8_000], "truncated"),
    "cut_flac": (
        lambda t: (
            soundfile.write(t / "c.flac", np.random.default_rng(0).normal(0, 0.1, 160_000), 16_000),
            (t / "c.flac").read_bytes()[:100_000],
        )[1],
        "truncated|not a readable",
    ),
    "huge_flac": (huge_flac, "more than .* can hold"),
    "nan": (lambda t: wav_bytes(t, np.full(16_000, np.nan, np.float32), subtype="FLOAT"), "NaN"),
    "inf": (lambda t: wav_bytes(t, np.full(16_000, np.inf, np.float32), subtype="FLOAT"), "NaN or infinite"),
    "no_frames": (lambda t: header(data=b""), "no audio|not a readable"),
    "no_channels": (lambda t: header(channels=0), "channels|not a readable"),
    "rate_0": (lambda t: header(rate=0), "sample rate|not a readable"),
    "64_channels": (lambda t: header(channels=64, data=b"\0" * 1280), "64 channels"),
    "4_GHz": (lambda t: header(rate=4_000_000_000), "sample rate|not a readable"),
}


def noise(seconds: float, kind: str = "flac") -> bytes:
    """Audio that does not compress, so that a cut falls where it is meant to."""
    return encode(
        torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(0)).numpy() * 0.1, kind=kind
    )


@cache
def three_hours() -> bytes:
    return encode(torch.full((3 * 3600 * 4_000,), 8_000, dtype=torch.int16).numpy(), 4_000, "flac")
