"""Seconds and memory that a data set of millions of clips costs before and between the steps, without any audio.

It writes shards that hold no audio (files of the right size with their first and last header, and whole index files), and
then starts a training epoch, shuffles, and resumes in the middle of an epoch, in a process of its own for each number of
clips. Memory per clip is the slope between the two numbers, so that what Python and torch need by themselves is left out.

    python benchmarks/two_million_clips.py                     # 2,000,000 clips in 2,000 shards; about 1 GB in --folder
    python benchmarks/two_million_clips.py --clips 200000 --shards 200
"""

import argparse
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from datamodules.loading.loaders import TrainLoader
from datamodules.loading.order import SampleOrder
from datamodules.loading.readers import IndexedReader
from datamodules.shards.index import Member, ShardIndex, write_index
from datamodules.shards.indexed import Fetched, NumberedSamples
from datamodules.shards.quarantine import Quarantine
from datamodules.shards.table import SampleTable

LIMIT = 100
"""Bytes per clip that a process, worker or not, may need at most."""


def write_shards(folder: Path, clips: int, shards: int) -> None:
    """Write `shards` tar files without audio and their indexes, with `clips` clips in all, named as AudioSet's are."""
    for number in range(shards):
        if not (folder / f"train-{number:06d}.index.json").exists():
            _write_shard(
                folder / f"train-{number:06d}.tar", range(number * clips // shards, (number + 1) * clips // shards)
            )


def _write_shard(path: Path, clips: range) -> None:
    members, offset = [], 0
    for clip in clips:
        digest = hashlib.sha256(str(clip).encode()).hexdigest()
        key = f"{digest[:11]}_{clip % 60 * 10_000}"
        for extension, size in (("flac", 190_000 + clip % 1000), ("json", 210)):
            members.append(Member(key, f"{key}.{extension}", offset + 512, size, digest))
            offset += 512 + -(-size // 512) * 512
    with open(path, "wb") as file:
        file.truncate(offset + 1024)
        for member in (members[0], members[-1]):
            header = tarfile.TarInfo(member.name)
            header.size = member.size
            file.seek(member.offset - 512)
            file.write(header.tobuf(tarfile.USTAR_FORMAT))
    write_index(path, ShardIndex(path.name, offset + 1024, len(clips), tuple(members)))


class Places(NumberedSamples):
    """Delivers where a sample is and how much memory the process has, in place of its audio."""

    def __init__(self, table: SampleTable) -> None:
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, item: tuple[int, int]) -> Fetched:
        """Locate one sample."""
        return Fetched({"key": self.table.group(item[1]).key, "memory": memory()["now"]}, [])


def memory() -> dict[str, int]:
    """Bytes that this process has now and had at most."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[field].split()[0]) * 1024 for name, field in (("now", "VmRSS"), ("most", "VmHWM"))}


def measure(folder: Path, shards: int) -> dict[str, Any]:
    """Start, shuffle and resume on the first `shards` shards; seconds of each, and the memory of this process and a worker."""
    torch.set_num_threads(1)
    figures: dict[str, Any] = {}
    cpu, clock = time.process_time(), time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        figures[name] = round(time.perf_counter() - clock, 2)
        clock = time.perf_counter()

    table = SampleTable([folder / f"train-{number:06d}.tar" for number in range(shards)])
    identity: dict[str, int | str] = {"samples": len(table), "digest": table.digest()}
    lap("start")
    figures["start, CPU"] = round(time.process_time() - cpu, 2)
    loader, read = _loader(table, identity)
    epoch = iter(loader)
    next(epoch)
    lap("shuffle and first batch")
    for _ in range(20):
        batch = next(epoch)
    lap("20 more batches")
    state = {**loader.state_dict(), "sample": len(table) // 2, "batch": len(table) // 2 // 32}
    read.close()
    loader, read = _loader(table, identity)
    clock = time.perf_counter()
    loader.load_state_dict(state)
    next(iter(loader))
    lap("resume in the middle")
    read.close()
    return {"clips": len(table), "seconds": figures, "process": memory(), "worker": max(batch["memory"])}


def _loader(table: SampleTable, identity: dict[str, int | str]) -> tuple[TrainLoader, IndexedReader]:
    order = SampleOrder(len(table), len(table), seed=0)
    read = IndexedReader(Places(table), order, batch_size=32, rank=0, world_size=1, num_workers=2)
    return TrainLoader(read, len(table), 32, Quarantine("train", 0.0), identity), read


def slopes(small: dict[str, Any], large: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Bytes of each process that one more clip costs."""
    clips = large["clips"] - small["clips"]
    yield "process, at most", (large["process"]["most"] - small["process"]["most"]) / clips
    yield "process, then", (large["process"]["now"] - small["process"]["now"]) / clips
    yield "worker", (large["worker"] - small["worker"]) / clips


def main() -> None:
    """Measure, print a table, and write the figures as JSON if that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2_000_000, help="number of clips")
    parser.add_argument("--shards", type=int, default=2_000, help="number of shards")
    parser.add_argument(
        "--folder", type=Path, help="where the shards are written and kept; default: a temporary folder"
    )
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)  # a child process measures this number of shards
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.folder, args.only)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        write_shards(folder, args.clips, args.shards)
        small, large = (
            json.loads(
                subprocess.run(
                    [sys.executable, __file__, "--only", str(shards), "--folder", str(folder)],
                    check=True, stdout=subprocess.PIPE, text=True,
                ).stdout
            )
            for shards in (max(1, args.shards // 20), args.shards)
        )  # fmt: skip
    print(f"{large['clips']:,} clips in {args.shards:,} shards, compared with {small['clips']:,}")
    for name, seconds in large["seconds"].items():
        print(f"  {name:<26}{seconds:10.2f} s{small['seconds'][name]:10.2f} s")
    figures = dict(slopes(small, large))
    for name, per_clip in figures.items():
        print(f"  {name:<26}{per_clip:10.0f} bytes per clip{'' if per_clip <= LIMIT else f'  (above {LIMIT})'}")
    if args.json:
        args.json.write_text(json.dumps({"small": small, "large": large, "bytes_per_clip": figures}, indent=1))


if __name__ == "__main__":
    main()
