"""Damaged tars and indexes: every kind of damage is named."""

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from shard_tools import both, decoder, flip, keys, plain_tar, read_indexed, read_streamed, sample, write_shards

from apa_lightning.errors import InputError
from datamodules.shards.index import index_path, read_index
from datamodules.shards.indexed import IndexedShards
from datamodules.shards.samples import LOST
from datamodules.shards.table import SampleTable


def promised(shard: Path) -> set[str]:
    return {m.key for m in read_index(shard).members}


def damages(shard: Path) -> Iterator[tuple[str, int]]:
    """Places to flip a byte: headers (name, size, checksum, magic, padding) and data, in the middle and at the ends."""
    members = read_index(shard).members
    for number in (0, 1, 4, 5, len(members) - 1):
        for field in (0, 124, 148, 156, 257, 400):
            yield f"header {number} at {field}", members[number].offset - 512 + field
        yield f"data of {number}", members[number].offset + members[number].size // 2


@both
def test_one_flipped_byte_loses_nothing_silently(tmp_path: Path, read) -> None:
    """BAD_INPUTS 12, with the index: delivered + quarantined = what was written."""
    (whole,) = write_shards(tmp_path, 6, 6)
    audio = {e["key"]: e["waveform"] for e in read_indexed(whole)[0]}
    for name, offset in damages(whole):
        (tmp_path / "damaged").mkdir(exist_ok=True)
        shard = Path(shutil.copy(whole, tmp_path / "damaged"))
        shutil.copy(index_path(whole), tmp_path / "damaged")
        flip(shard, offset)
        examples, faults = read(shard)
        delivered, lost = keys(examples), {f.key for f in faults if not f.kept and f.key in promised(whole)}
        assert len(set(delivered)) == len(delivered) and set(delivered) | lost == promised(whole), name
        assert all(torch.equal(e["waveform"], audio[e["key"]]) for e in examples), name
        if read is read_indexed:
            assert len(lost) == (1 if name.startswith("data") else 0), name


@pytest.mark.parametrize("field", [0, 148, 257])
@pytest.mark.parametrize("number", [2, 5, 11])
def test_one_flipped_header_byte_without_an_index(tmp_path: Path, field: int, number: int) -> None:
    """The walk goes on behind the damage; the stream says that there is some."""
    (shard,) = write_shards(tmp_path, 6, 6)
    spoilt = read_index(shard).members[number]
    index_path(shard).unlink()
    flip(shard, spoilt.offset - 512 + field)
    examples, faults = read_indexed(shard)
    assert len(examples) == 5 and spoilt.key not in keys(examples)
    assert {f.reason for f in faults} == {
        LOST,
        "sample without JSON" if spoilt.name.endswith("json") else "sample without audio",
    }
    examples, faults = read_streamed(shard)
    assert keys(examples) == [f"train{i:03d}" for i in range(number // 2)]
    assert LOST in {f.reason for f in faults}


@both
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("indexed", [True, False])
def test_a_cut_shard(tmp_path: Path, read, share: float, indexed: bool) -> None:
    (shard,) = write_shards(tmp_path, 6, 6)
    expected = promised(shard)
    with open(shard, "r+b") as file:
        file.truncate(int(shard.stat().st_size * share))
    if not indexed:
        index_path(shard).unlink()
    examples, faults = read(shard)
    assert 0 < len(examples) < 6 and LOST in {f.reason for f in faults}
    if indexed:
        assert set(keys(examples)) | {f.key for f in faults} == expected
        assert not set(keys(examples)) & {f.key for f in faults}


def test_a_cut_between_two_members_is_seen_by_the_missing_end_mark(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, 4, 4)
    third = read_index(shard).members[4]
    index_path(shard).unlink()
    with open(shard, "r+b") as file:
        file.truncate(third.offset - 512)
    examples, faults = read_indexed(shard)
    assert len(examples) == 2 and "no end mark" in faults[0].detail


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 10_240, np.random.default_rng(1).bytes(20_000), b"PK\3\4" + bytes(9_000), b"x"]
)
def test_what_is_no_tar_is_named_before_anything_is_read(tmp_path: Path, content: bytes, indexed: bool) -> None:
    (shard,) = write_shards(tmp_path, 4, 4)
    shard.write_bytes(content)
    if not indexed:
        index_path(shard).unlink()
    with pytest.raises(InputError, match=r"train-000000\.tar'"):
        SampleTable([shard])


def test_an_index_of_another_shard_is_refused(tmp_path: Path) -> None:
    first, second = write_shards(tmp_path, 4, 2)
    index_path(second).unlink()
    index = json.loads(index_path(first).read_bytes())
    index_path(second).write_text(json.dumps({**index, "shard": second.name}))
    with pytest.raises(InputError, match="not the tar that its index describes"):
        SampleTable([second])
    index_path(first).write_text(json.dumps({**index, "samples": 7}))
    with pytest.raises(InputError, match="lists other samples than its count says"):
        SampleTable([first])


def test_members_after_the_index_was_written_are_remarked_and_not_read(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, 2, 2)
    with tarfile.open(shard, "a") as tar:
        info = tarfile.TarInfo("late.pyd")
        info.size = 20_000
        tar.addfile(info, io.BytesIO(bytes(20_000)))
    examples, faults = read_indexed(shard)
    assert len(examples) == 2 and [(f.reason, f.kept) for f in faults] == [("shard longer than its index", True)]


def test_a_shard_that_disappears_is_quarantined(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, 2, 2)
    data = IndexedShards(SampleTable([shard]), decoder(), substitute=True)
    shard.unlink()
    fetched = data[0]
    assert fetched.example is None and fetched.stop and {f.reason for f in fetched.faults} == {"shard cannot be read"}


def test_a_broken_sample_is_replaced_by_the_same_one_each_time(tmp_path: Path) -> None:
    shard = plain_tar(
        tmp_path / "x.tar", [*(m for i in range(5) for m in sample(f"k{i}", i)), ("b.wav", b""), sample("b")[1]]
    )
    data = IndexedShards(SampleTable([shard]), decoder(), substitute=True)
    first, again = data[(3, 5)], data[(3, 5)]
    assert first.example["key"] == again.example["key"] != "b" and [f.key for f in first.faults] == ["b"]
    assert len({data[(epoch, 5)].example["key"] for epoch in range(20)}) > 1
