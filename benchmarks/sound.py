"""Made-up music: a tune of decaying harmonic tones with a little noise, and WebDataset shards of such tunes."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def tune(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A mono waveform (S,) at about half scale."""
    rng, beat = np.random.default_rng(seed), 0.32
    wave = 0.003 * rng.standard_normal(round(seconds * rate))
    for start in np.arange(0, seconds, beat):
        times = np.arange(round(min(2 * beat, seconds - start) * rate)) / rate
        pitch = 220 * 2 ** (rng.choice([0, 2, 4, 5, 7, 9, 11, 12]) / 12)
        tone = sum(np.sin(2 * np.pi * pitch * n * times) / n**1.5 for n in range(1, 8)) * np.exp(-4 * times)
        wave[round(start * rate) :][: len(tone)] += 0.25 * tone
    return np.clip(wave, -1, 1).astype(np.float32)


def write_folder(folder: Path, count: int, seconds: float) -> None:
    """WAV files."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        soundfile.write(folder / f"tune-{i:03d}.wav", tune(seconds, i), RATE)


def write_shards(folder: Path, count: int, seconds: float, per_shard: int = 128) -> list[Path]:
    """Shards of FLAC files with AudioSet labels, as plain tar files: any reader's input."""
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for first in range(0, count, per_shard):
        shards.append(folder / f"train-{first // per_shard:06d}.tar")
        with tarfile.open(shards[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for i in range(first, min(first + per_shard, count)):
                file = io.BytesIO()
                soundfile.write(file, tune(seconds, i), RATE, format="FLAC")
                about = {"labels": ["Piano", "Music"]}
                for ending, content in (("flac", file.getvalue()), ("json", json.dumps(about).encode())):
                    member = tarfile.TarInfo(f"tune{i:06d}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return shards
