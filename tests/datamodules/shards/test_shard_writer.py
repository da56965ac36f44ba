"""Shards: same samples, same bytes; whole or not there; an index that tells the truth."""

import errno
import hashlib
import json
import os
import tarfile
from pathlib import Path

import pytest
from shard_tools import clip, write_shards

from apa_lightning.errors import InputError
from datamodules.shards.index import index_path, read_index
from datamodules.shards.writer import ShardWriter

LABELS = {"labels": ["Violin, fiddle"]}


def test_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_shards(tmp_path / name, 5, 2) for name in "ab")
    assert [p.name for p in first] == ["train-000000.tar", "train-000001.tar", "train-000002.tar"]
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert index_path(a).read_bytes() == index_path(b).read_bytes()


def test_index_says_where_each_member_lies_and_what_it_holds(tmp_path: Path) -> None:
    for shard in write_shards(tmp_path, 5, 3):
        index, data = read_index(shard), shard.read_bytes()
        assert index is not None and index.bytes == len(data)
        with tarfile.open(shard) as tar:
            infos = tar.getmembers()
        assert [(m.name, m.offset, m.size) for m in index.members] == [(i.name, i.offset_data, i.size) for i in infos]
        assert {(i.mtime, i.uid, i.gid, i.mode, i.uname) for i in infos} == {(0, 0, 0, 0o644, "")}
        for member in index.members:
            assert hashlib.sha256(data[member.offset :][: member.size]).hexdigest() == member.sha256
        assert index.samples == len({m.key for m in index.members}) == len(infos) // 2


def test_max_bytes_holds_and_one_large_sample_gets_its_own_shard(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a-{:06d}.tar", max_bytes=20_480) as writer:
        for i, size in enumerate((3000, 3000, 3000, 3000, 3000, 50_000, 3000)):
            writer.write(f"k{i}", bytes(size), "wav", LABELS)
    sizes = [(shard.stat().st_size, read_index(shard).samples) for shard in writer.shards]
    assert sizes == [(20_480, 4), (10_240, 1), (61_440, 1), (10_240, 1)]


def test_metadata_is_kept_and_unicode_survives(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a-{:d}.tar") as writer:
        writer.write("k", clip(0), "flac", {"labels": ["Música"], "caption": "é", "year": 1999})
    with tarfile.open(writer.shards[0]) as tar:
        assert json.load(tar.extractfile("k.json")) == {"labels": ["Música"], "caption": "é", "year": 1999}
    with ShardWriter(tmp_path / "b-{:d}.tar") as writer:
        writer.write("k", clip(0), "flac", {"labels": "Violin, fiddle;Music", "caption": None})
    with tarfile.open(writer.shards[0]) as tar:
        assert json.load(tar.extractfile("k.json")) == {"labels": ["Violin, fiddle", "Music"]}


def test_an_audio_prompt_is_a_third_member_of_its_sample(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a-{:d}.tar") as writer:
        writer.write("a" * 88, b"target", "flac", LABELS, prompt=b"prompt")
        writer.write("b" * 90, b"alone", "flac", LABELS)
        with pytest.raises(InputError, match="up to 88 characters"):
            writer.write("c" * 89, b"target", "flac", LABELS, prompt=b"prompt")
        with pytest.raises(InputError, match="the audio prompt of 'd' is empty"):
            writer.write("d", b"target", "flac", LABELS, prompt=b"")
    with tarfile.open(writer.shards[0]) as tar:
        assert [name.lstrip("ab") for name in tar.getnames()] == [".flac", ".prompt.flac", ".json", ".flac", ".json"]
        assert tar.extractfile("a" * 88 + ".prompt.flac").read() == b"prompt"
    assert read_index(writer.shards[0]).samples == 2


@pytest.mark.parametrize(
    ("key", "audio", "extension", "metadata", "message"),
    [
        ("a.b", b"x", "flac", LABELS, "key 'a.b'"),
        ("a/b", b"x", "flac", LABELS, "key 'a/b'"),
        ("", b"x", "flac", LABELS, "key ''"),
        ("__a__", b"x", "flac", LABELS, "key '__a__'"),
        ("a" * 91, b"x", "flac", LABELS, "up to 90"),
        ("old", b"x", "flac", LABELS, "key 'old' was written before"),
        ("a", b"x", "pkl", LABELS, "extension 'pkl'"),
        ("a", b"", "flac", LABELS, "audio of 'a' is empty"),
        ("a", b"x", "flac", {}, '"labels"'),
        ("a", b"x", "flac", {"labels": []}, '"labels"'),
        ("a", b"x", "flac", {"labels": " "}, '"labels"'),
        ("a", b"x", "flac", {"labels": ["Piano"], "caption": 3}, "metadata of 'a': \"caption\" must be a text"),
        ("a", b"x", "flac", {"labels": ["Piano"], "level": float("nan")}, "cannot be written as JSON"),
    ],
)
def test_refusals(tmp_path: Path, key: str, audio: bytes, extension: str, metadata: dict, message: str) -> None:
    with ShardWriter(tmp_path / "a-{:d}.tar") as writer:
        writer.write("old", b"x", "flac", LABELS)
        with pytest.raises(InputError) as caught:
            writer.write(key, audio, extension, metadata)
        assert message in str(caught.value)
    assert read_index(writer.shards[0]).samples == 1  # the refusal left the shard whole


@pytest.mark.parametrize("pattern", ["a.tar", "a-{:06d}.zip", "a-{x}.tar", "a-{:06q}.tar", "a-{}-{}.tar"])
def test_bad_patterns(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(InputError, match="pattern"):
        ShardWriter(tmp_path / pattern)


def test_bad_limits(tmp_path: Path) -> None:
    for options in ({"max_bytes": 0}, {"max_samples": 0}, {"start": -1}):
        with pytest.raises(InputError, match=next(iter(options))):
            ShardWriter(tmp_path / "a-{}.tar", **options)


def test_an_exception_keeps_finished_shards_and_drops_the_open_one(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "a-{:d}.tar", max_samples=1) as writer:
        writer.write("a", b"x", "flac", LABELS)
        writer.write("b", b"x", "flac", LABELS)
        raise RuntimeError
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-0.index.json", "a-0.tar"]


def test_nothing_written_makes_no_file(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a-{:d}.tar"):
        pass
    assert not list(tmp_path.iterdir())


def test_finished_shards_are_not_overwritten_unless_asked(tmp_path: Path) -> None:
    write_shards(tmp_path, 1, 1)
    before = (tmp_path / "train-000000.tar").read_bytes()
    with pytest.raises(InputError, match="exists already"):
        write_shards(tmp_path, 2, 2)
    assert (tmp_path / "train-000000.tar").read_bytes() == before
    with ShardWriter(tmp_path / "train-{:06d}.tar", overwrite=True) as writer:
        writer.write("new", b"x", "flac", LABELS)
    assert read_index(tmp_path / "train-000000.tar").members[0].key == "new"


def test_a_full_disk_leaves_the_old_shard_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shard,) = write_shards(tmp_path, 2, 2)
    before = shard.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="space"), ShardWriter(tmp_path / "train-{:06d}.tar", overwrite=True) as writer:
        writer.write("new", b"x", "flac", LABELS)
    assert shard.read_bytes() == before and read_index(shard).samples == 2
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_run_left_of_a_shard_goes_with_the_next(tmp_path: Path) -> None:
    for name in (".train-000000.01234567.tmp.tar", ".train-000000.index.01234567.tmp.json"):
        (tmp_path / name).write_bytes(b"half")
    write_shards(tmp_path, 2, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train-000000.index.json", "train-000000.tar"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 2}',
        b'{"format": 1}',
        b"\xff\xfe",
        b'{"format": 1, "shard": "other.tar", "bytes": 1, "samples": 0, "members": []}',
        b'{"format": 1, "shard": "train-000000.tar", "bytes": 1, "samples": 1, "members": [{"key": "a"}]}',
        b'{"format": 1, "shard": "train-000000.tar", "bytes": 1, "samples": 1, "members": '
        b'[{"key": "a", "name": "a.wav", "offset": -1, "size": 1, "sha256": ""}]}',
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, text: bytes) -> None:
    index_path(tmp_path / "train-000000.tar").write_bytes(text)
    with pytest.raises(InputError, match=r"train-000000.index.json' is not an index"):
        read_index(tmp_path / "train-000000.tar")
