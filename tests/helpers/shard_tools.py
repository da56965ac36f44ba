"""Tiny shards for tests: good ones, every way to damage them, and both ways to read them."""

import contextlib
import functools
import http.server
import io
import json
import os
import signal
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from datamodules.shards.captions import CaptionTemplates
from datamodules.shards.decoding import ExampleDecoder
from datamodules.shards.indexed import IndexedShards
from datamodules.shards.samples import Fault
from datamodules.shards.streamed import StreamedShards
from datamodules.shards.table import SampleTable
from datamodules.shards.writer import ShardWriter

RATE = 16_000


def tone(seconds: float = 1.2, rate: int = RATE, frequency: float = 440.0, channels: int = 1) -> np.ndarray:
    """A sine at half scale, (S,) or (S, C)."""
    wave = 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)
    return wave if channels == 1 else np.stack([wave] * channels, axis=1)


def encode(wave: np.ndarray, rate: int = RATE, kind: str = "flac", subtype: str | None = None) -> bytes:
    """The bytes of an audio file."""
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind.upper(), subtype=subtype)
    return file.getvalue()


def clip(number: int, seconds: float = 1.2) -> bytes:
    """A FLAC whose pitch tells its number."""
    return encode(tone(seconds, frequency=200.0 + 10 * number))


def write_shards(
    folder: Path, samples: int, per_shard: int, name: str = "train", first: int = 0, seconds: float = 1.2
) -> list[Path]:
    """Good shards with indexes; keys `<name><number>`."""
    with ShardWriter(folder / (name + "-{:06d}.tar"), max_samples=per_shard) as writer:
        for i in range(first, first + samples):
            writer.write(f"{name}{i:03d}", clip(i, seconds), "flac", {"labels": ["Piano", "Music"]})
    return writer.shards


def plain_tar(path: Path, members: list[tuple[str, bytes] | tarfile.TarInfo]) -> Path:
    """A tar without an index, of any members."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return path


def sample(key: str, number: int = 0, labels: object = ("Piano",), kind: str = "flac") -> list[tuple[str, bytes]]:
    """The two members of a good sample."""
    metadata = json.dumps({"labels": list(labels)}).encode()  # type: ignore[call-overload]
    return [(f"{key}.{kind}", encode(tone(frequency=200.0 + 10 * number), kind=kind)), (f"{key}.json", metadata)]


def special(name: str, kind: bytes, target: str = "/nowhere/target") -> tarfile.TarInfo:
    """A link or device member."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def flip(path: Path, offset: int, bits: int = 0xFF) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= bits
    path.write_bytes(data)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and says nothing of it."""

    def log_message(self, *_: object) -> None:
        pass


class Ranged(Quiet):
    """A server that answers range requests, and notes what it was asked for: (path, range)."""

    def __init__(self, *arguments: object, asked: list[tuple[str, str]] | None = None, **options: object) -> None:
        self.asked = [] if asked is None else asked
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.asked.append((self.path, asked))
        file = Path(self.translate_path(self.path))
        if not asked or not file.is_file():
            super().do_GET()
            return
        start, last = map(int, asked.removeprefix("bytes=").split("-"))
        size = file.stat().st_size
        if start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        data = file.read_bytes()[start : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.answer(data)

    def answer(self, data: bytes) -> None:
        """Send the bytes of a range."""
        self.wfile.write(data)


@contextlib.contextmanager
def served(root: Path, handler: Callable[..., Quiet] = Quiet) -> Iterator[str]:
    """The URL of a folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(root))) as service:
        threading.Thread(target=service.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{service.server_address[1]}"
        service.shutdown()


def kill_own_process(_: object) -> None:
    """Stands in for a worker's function, in a module that other processes can import."""
    os.kill(os.getpid(), signal.SIGKILL)


def decoder(seconds: float = 1.0, random_crop: bool = False, **options: object) -> ExampleDecoder:
    defaults = {"sample_rate": 16_000, "min_seconds": 0.5, "captions": CaptionTemplates(), "seed": 0}
    return ExampleDecoder(audio_length_in_s=seconds, random_crop=random_crop, **{**defaults, **options})  # type: ignore


def read_indexed(*paths: Path) -> tuple[list[dict], list[Fault]]:
    """Every sample once: (examples, faults)."""
    table = SampleTable(paths)
    fetched = [IndexedShards(table, decoder(), substitute=False)[i] for i in range(len(table))]
    return [f.example for f in fetched if f.example], [*table.faults, *(x for f in fetched for x in f.faults)]


def read_streamed(*urls: Path | str) -> tuple[list[dict], list[Fault]]:
    fetched = list(StreamedShards([str(url) for url in urls], decoder(), endless=False))
    return [f.example for f in fetched if f.example], [x for f in fetched for x in f.faults]


both = pytest.mark.parametrize("read", [read_indexed, read_streamed])


def keys(examples: list[dict]) -> list[str]:
    return [example["key"] for example in examples]
