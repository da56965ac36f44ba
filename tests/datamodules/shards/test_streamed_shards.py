"""Streamed shards: http, commands, and how readers share the samples."""

import base64
import functools
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shard_tools import Quiet, decoder, encode, flip, keys, plain_tar, read_streamed, sample, served, tone, write_shards

from datamodules import remote
from datamodules.shards.index import index_path, read_index
from datamodules.shards.samples import LOST
from datamodules.shards.streamed import StreamedShards
from datamodules.shards.writer import ShardWriter


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    root = tmp_path / "www"
    root.mkdir()
    with served(root) as url:
        yield root, url


def test_http(server: tuple[Path, str]) -> None:
    root, url = server
    shards = write_shards(root, 4, 2)
    urls = [f"{url}/{shard.name}" for shard in shards]
    examples, faults = read_streamed(*urls)
    assert keys(examples) == [f"train{i:03d}" for i in range(4)] and not faults
    for shard in shards:
        index_path(shard).unlink()
    assert keys(read_streamed(*urls)[0]) == keys(examples)


def test_http_damage_is_found_by_the_index(server: tuple[Path, str]) -> None:
    root, url = server
    (shard,) = write_shards(root, 6, 6)
    flip(shard, read_index(shard).members[4].offset - 512)
    examples, faults = read_streamed(f"{url}/{shard.name}", f"{url}/none.tar")
    assert keys(examples) == ["train000", "train001"]
    assert {f.key: f.reason for f in faults} == {
        **{f"train{i:03d}": LOST for i in range(2, 6)},
        "": "shard cannot be read",
    }


class Trying(Quiet):
    """A server that wants a name, is busy at first, and goes silent in the middle of `silent-000000.tar`."""

    def __init__(self, *arguments: object, asked: list[str], **options: object) -> None:
        self.asked = asked
        super().__init__(*arguments, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.headers.get("Authorization") != "Basic " + base64.b64encode(b"me@x:s c").decode():
            self.send_error(401)
        elif self.asked.count(self.path) < 3 and "silent" not in self.path:
            self.send_error(503)
        elif self.path == "/silent-000000.tar":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(Path(self.directory, "silent-000000.tar").read_bytes()[:-12_000])
            time.sleep(20)
        else:
            super().do_GET()


def test_http_servers_that_are_busy_or_silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    monkeypatch.setattr(remote, "SILENCE", 0.5)
    write_shards(tmp_path, 2, 2)
    write_shards(tmp_path, 3, 3, "silent")
    asked: list[str] = []
    with served(tmp_path, functools.partial(Trying, asked=asked)) as url:
        url = url.replace("//", "//me%40x:s%20c@")
        examples, faults = read_streamed(f"{url}/train-000000.tar")
        assert keys(examples) == ["train000", "train001"] and not faults
        examples, faults = read_streamed(f"{url}/silent-000000.tar")
        assert keys(examples) == ["silent000"]
        assert [f.key for f in faults] == ["silent001", "silent002"] and faults[1].detail.endswith("Read timed out.")
        monkeypatch.setattr(remote, "TRIES", 2)
        asked.clear()
        assert "503" in read_streamed(f"{url}/train-000000.tar")[1][0].detail


def test_http_delivers_only_what_the_index_says_was_written(server: tuple[Path, str]) -> None:
    """A byte of a WAV, or of a label, that nothing but the index's digest tells of; and another shard's samples."""
    root, url = server
    with ShardWriter(root / "wav-{:06d}.tar", max_samples=3) as writer:
        for i in range(3):
            writer.write(f"k{i}", encode(tone(), kind="wav"), "wav", {"labels": ["Piano"]})
    (shard,) = writer.shards
    members = {member.name: member.offset for member in read_index(shard).members}
    flip(shard, members["k0.wav"] + 2000)
    flip(shard, members["k2.json"] + shard.read_bytes()[members["k2.json"] :].index(b"Piano"), 0x01)
    examples, faults = read_streamed(f"{url}/{shard.name}")
    assert keys(examples) == ["k1"] and {f.key: f.reason for f in faults} == dict.fromkeys(
        ("k0", "k2"), "checksum differs"
    )
    first, second = write_shards(root, 4, 2)
    shutil.copy(second, first)
    examples, faults = read_streamed(f"{url}/{first.name}", f"{url}/{second.name}")
    assert keys(examples) == ["train002", "train003"] and {f.key for f in faults} == {f"train{i:03d}" for i in range(4)}


def test_pipe(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, 2, 2)
    examples, faults = read_streamed(f"pipe:cat {shard}")
    assert len(examples) == 2 and not faults
    examples, faults = read_streamed("pipe:false")
    assert not examples and [f.reason for f in faults] == ["shard cannot be read"]


def test_all_that_came_before_a_command_failed_is_delivered(tmp_path: Path) -> None:
    """webdataset's pipe raises as soon as the command has ended, whatever of its output is still to be read."""
    (shard,) = write_shards(tmp_path, 6, 6)
    size = read_index(shard).members[8].offset - 512
    for _ in range(5):
        examples, faults = read_streamed(f"pipe:head -c {size} {shard}; exit 3")
        assert keys(examples) == [f"train{i:03d}" for i in range(4)]
        (fault,) = faults
        assert fault.reason == LOST and "exit 3" in fault.detail


@pytest.mark.parametrize(("shards", "world_size"), [(1, 1), (1, 3), (2, 3), (3, 2), (5, 2), (2, 7)])
def test_streams_share_out_every_sample_once(tmp_path: Path, shards: int, world_size: int) -> None:
    paths = [str(p) for p in write_shards(tmp_path, 11, -(-11 // shards))]
    ranks = [StreamedShards(paths, decoder(), False, rank=rank, world_size=world_size) for rank in range(world_size)]
    found = [f.example["key"] for rank in ranks for f in rank if f.example]
    assert sorted(found) == [f"train{i:03d}" for i in range(11)]


def test_endless_streams_shuffle_by_seed_and_epoch(tmp_path: Path) -> None:
    paths = [str(p) for p in write_shards(tmp_path, 12, 4)]

    def first(number: int, epoch: int, seed: int = 0) -> list[str]:
        stream = StreamedShards(paths, decoder(seed=seed), True, shuffle_buffer=6)
        stream.epoch = epoch
        return [f.example["key"] for f, _ in zip(stream, range(number), strict=False)]

    assert first(30, 1) == first(30, 1) != first(30, 2) != first(30, 2, seed=1)
    assert sorted(first(24, 0)) == sorted([f"train{i:03d}" for i in range(12)] * 2)
    assert first(24, 0)[:12] != first(24, 0)[12:]


def test_an_endless_stream_without_a_usable_sample_ends(tmp_path: Path) -> None:
    shard = plain_tar(tmp_path / "x.tar", [("a.wav", b""), sample("a")[1]])
    fetched = list(StreamedShards([str(shard)], decoder(), True))
    assert len(fetched) == 1 and fetched[0].stop and fetched[0].faults[0].key == "a"
