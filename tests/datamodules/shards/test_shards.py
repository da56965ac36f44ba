"""Reading shards: every kind of damage is named, nothing runs, and what is whole arrives."""

import base64
import functools
import io
import json
import shutil
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from markers import Payload, pickled
from shard_tools import Quiet, clip, encode, flip, plain_tar, sample, served, special, tone, write_shards

from apa_lightning.errors import InputError
from apa_lightning.utils.rng import generator_for
from datamodules.shards import streamed as streamed_shards
from datamodules.shards import urls as shards_module
from datamodules.shards.captions import TEMPLATES, CaptionTemplates, lower_first
from datamodules.shards.decoding import ExampleDecoder
from datamodules.shards.index import index_path, read_index
from datamodules.shards.indexed import IndexedShards, SampleTable
from datamodules.shards.quarantine import Quarantine, QuarantineWarning
from datamodules.shards.samples import LOST, BadSample, Fault, split_name
from datamodules.shards.streamed import StreamedShards
from datamodules.shards.urls import expand_shards
from datamodules.shards.writer import ShardWriter


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


# --- what is whole ----------------------------------------------------------------------------------------------------


@both
def test_whole_shards_arrive_in_order(tmp_path: Path, read) -> None:
    examples, faults = read(*write_shards(tmp_path, 5, 2))
    assert keys(examples) == [f"train{i:03d}" for i in range(5)] and not faults
    for number, example in enumerate(examples):
        assert example["waveform"].shape == (16_000,) and example["waveform"].dtype == torch.float32
        spectrum = torch.fft.rfft(example["waveform"]).abs()
        assert spectrum.argmax() == 200 + 10 * number  # Hz, in a window of one second: each key has its own audio
        assert example["labels"] == ["Piano", "Music"] and "piano, music" in example["prompt"]


@both
@pytest.mark.parametrize(
    ("kind", "rate", "channels", "subtype"),
    [
        ("wav", 8_000, 1, "PCM_U8"), ("wav", 11_025, 2, "PCM_16"), ("wav", 22_050, 1, "PCM_24"),
        ("wav", 44_100, 2, "PCM_32"), ("wav", 48_000, 1, "FLOAT"), ("wav", 96_000, 1, "DOUBLE"),
        ("flac", 44_100, 2, "PCM_24"), ("ogg", 44_100, 2, None), ("mp3", 44_100, 2, None), ("mp3", 48_000, 1, None),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, read, kind: str, rate: int, channels: int, subtype: str | None) -> None:
    audio = encode(tone(1.5, rate, channels=channels), rate, kind, subtype)
    shard = plain_tar(tmp_path / "a.tar", [(f"a.{kind.upper()}", audio), sample("a")[1]])
    (example,), faults = read(shard)
    assert not faults and example["waveform"].shape == (16_000,)
    assert 0.4 < example["waveform"].abs().max() < 0.6
    assert torch.fft.rfft(example["waveform"]).abs().argmax() == 440


@both
def test_without_an_index_and_with_other_members_beside(tmp_path: Path, read) -> None:
    folder = tarfile.TarInfo("./data")
    folder.type = tarfile.DIRTYPE
    a, b = sample("./data/a"), sample("data/b")
    shard = plain_tar(
        tmp_path / "a.tar",
        [folder, a[0], ("data/a.txt", b"words"), a[1], ("data/._b.json", b"mac"), b[1], b[0], ("__meta__", b"x")],
    )
    examples, faults = read(shard)
    assert keys(examples) == ["data/a", "data/b"] and not faults


def test_a_recording_of_hours_is_handled_by_the_window(tmp_path: Path) -> None:
    wave = np.zeros(3 * 3600 * 4_000, dtype=np.float32)
    wave[:8_000] = 0.5
    shard = plain_tar(tmp_path / "a.tar", [("a.flac", encode(wave, 4_000)), sample("a")[1]])
    (example,), faults = read_indexed(shard)
    assert example["waveform"].shape == (16_000,) and not faults


def test_windows_and_captions_depend_on_seed_epoch_and_key_alone(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, 3, 3, seconds=3.0)
    table = SampleTable([shard])

    def all_of(epoch: int, order: tuple[int, ...] = (0, 1, 2), seed: int = 0) -> dict[str, tuple[str, bytes]]:
        data = IndexedShards(table, decoder(random_crop=True, seed=seed), substitute=True)
        found = [data[(epoch, i)].example for i in order]
        return {e["key"]: (e["prompt"], e["waveform"].numpy().tobytes()) for e in found}

    assert all_of(4) == all_of(4, order=(2, 0, 1))
    assert all(all_of(4)[key][1] != all_of(5)[key][1] for key in all_of(4))
    assert all(all_of(4)[key][1] != all_of(4, seed=1)[key][1] for key in all_of(4))


def test_short_clips_are_padded_and_validation_starts_at_the_start(tmp_path: Path) -> None:
    ramp = np.linspace(-0.5, 0.5, 16_000)
    data = decoder(2.0)("a", encode(ramp, kind="wav", subtype="FLOAT"), b'{"labels": ["Piano"]}', 0)["waveform"]
    assert torch.equal(data[:16_000], torch.from_numpy(ramp).float()) and not data[16_000:].any()
    data = decoder(0.5)("a", encode(ramp, kind="wav", subtype="FLOAT"), b'{"labels": ["Piano"]}', 0)["waveform"]
    assert torch.equal(data, torch.from_numpy(ramp[:8_000]).float())


def test_random_windows_reach_both_ends() -> None:
    ramp = encode(np.linspace(0, 1, 48_000), kind="wav", subtype="FLOAT")
    crop = decoder(1.0, random_crop=True)
    starts = [float(crop("a", ramp, b'{"labels": ["Piano"]}', epoch)["waveform"][0]) for epoch in range(100)]
    assert 0 <= min(starts) < 0.05 and 0.6 < max(starts) <= 2 / 3 + 1e-4


# --- broken samples: skipped, counted, named --------------------------------------------------------------------------


def wav_header(channels: int = 1, rate: int = 16_000, data: int = 32_000) -> bytes:
    fields = (16).to_bytes(4, "little") + (1).to_bytes(2, "little") + channels.to_bytes(2, "little")
    fields += rate.to_bytes(4, "little") + (rate * channels * 2 % 2**32).to_bytes(4, "little")
    fields += (channels * 2).to_bytes(2, "little") + (16).to_bytes(2, "little")
    return b"RIFF" + (36 + data).to_bytes(4, "little") + b"WAVEfmt " + fields + b"data" + data.to_bytes(4, "little")


def huge_flac() -> bytes:
    """A FLAC whose header claims 2^36 - 1 frames."""
    data = bytearray(clip(0))
    data[21] |= 0x0F  # STREAMINFO: the low four bits of byte 21 and the next four bytes count the samples
    data[22:26] = b"\xff" * 4
    return bytes(data)


bad = tone()
bad[5] = np.nan
infinite = tone()
infinite[5] = np.inf

BROKEN_AUDIO = {
    "1 empty": (b"", "flac"),
    "1 random": (np.random.default_rng(0).bytes(5000), "flac"),
    "1 html": (b"<html><body>404</body></html>", "wav"),
    "2 short data": (encode(tone(), kind="wav")[:-8000], "wav"),
    "3 cut flac": (clip(0)[: len(clip(0)) // 2], "flac"),
    "4 flac of 2^36 frames": (huge_flac(), "flac"),
    "5 nan": (encode(bad, kind="wav", subtype="FLOAT"), "wav"),
    "5 inf": (encode(infinite, kind="wav", subtype="FLOAT"), "wav"),
    "6 no frames": (wav_header(data=0), "wav"),
    "6 no channels": (wav_header(channels=0) + bytes(32_000), "wav"),
    "6 no rate": (wav_header(rate=0) + bytes(32_000), "wav"),
    "7 64 channels": (wav_header(channels=64) + bytes(32_000), "wav"),
    "7 4 GHz": (wav_header(rate=4_000_000_000) + bytes(32_000), "wav"),
    "9 0.05 s": (encode(tone(0.05)), "flac"),
}


@both
@pytest.mark.parametrize("name", BROKEN_AUDIO)
def test_broken_audio_is_skipped_and_named(tmp_path: Path, read, name: str) -> None:
    audio, kind = BROKEN_AUDIO[name]
    members = [*sample("a"), (f"b.{kind}", audio), ("b.json", b'{"labels": ["Piano"]}'), *sample("c")]
    examples, faults = read(plain_tar(tmp_path / "x.tar", members))
    assert keys(examples) == ["a", "c"]
    assert [(f.key, f.kept) for f in faults] == [("b", False)] and "x.tar" in faults[0].shard
    assert faults[0].reason == ("too short" if name.startswith("9") else "unusable audio") and faults[0].detail


@both
def test_silence_is_delivered_with_a_remark(tmp_path: Path, read) -> None:
    examples, faults = read(
        plain_tar(tmp_path / "x.tar", [("a.wav", encode(np.zeros(16_000), kind="wav")), sample("a")[1]])
    )
    assert keys(examples) == ["a"] and [(f.reason, f.kept) for f in faults] == [("digital silence", True)]


@both
@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        (b"", "bad JSON"),
        (b"{", "bad JSON"),
        (b"[" * 100_000, "bad JSON"),
        (b"\xff\xfe\x00", "bad JSON"),
        (b"[1]", "bad JSON"),
        (b'"Piano"', "bad JSON"),
        (b"null", "bad JSON"),
        (b'{"labels": ["Piano"], "caption": 3}', "bad JSON"),
        (b'{"labels": ["Piano"], "x": "' + b"y" * (1 << 20) + b'"}', None),
        (b"{}", "labels missing"),
        (b'{"labels": []}', "labels missing"),
        (b'{"labels": "Piano"}', "labels missing"),
        (b'{"labels": [3]}', "labels missing"),
        (b'{"labels": [""]}', "labels missing"),
    ],
)
def test_bad_metadata(tmp_path: Path, read, metadata: bytes, reason: str | None) -> None:
    members = [*sample("a"), sample("b")[0], ("b.json", metadata), *sample("c")]
    examples, faults = read(plain_tar(tmp_path / "x.tar", members))
    assert keys(examples) == ["a", "c"] and [f.key for f in faults] == ["b"]
    assert faults[0].reason == (reason or faults[0].reason)


@both
@pytest.mark.parametrize(
    ("members", "delivered", "quarantined"),
    [
        ([sample("b")[0]], [], {"b": "sample without JSON"}),
        ([sample("b")[1]], [], {"b": "sample without audio"}),
        ([*sample("b"), *sample("b")], [], {"b": "duplicate key"}),
        ([*sample("b"), *sample("d"), *sample("b")], ["b", "d"], {"b": "duplicate key"}),
        ([sample("b")[0], *sample("b", 1)], [], {"b": "duplicate key"}),
        (
            [sample("b")[0], sample("d")[0], sample("b")[1], sample("d")[1]],
            [],
            {"b": "duplicate key", "d": "duplicate key"},
        ),
        ([*sample("b"), sample("b", kind="wav")[0]], [], {"b": "sample with several audio files"}),
    ],
)
def test_members_that_do_not_make_a_sample(
    tmp_path: Path, read, members: list, delivered: list, quarantined: dict
) -> None:
    """BAD_INPUTS 13. A key that comes again spoils its second appearance; the first has been delivered by then."""
    examples, faults = read(plain_tar(tmp_path / "x.tar", [*sample("a"), *members, *sample("c")]))
    assert keys(examples) == ["a", *delivered, "c"]
    assert {f.key: f.reason for f in faults} == quarantined


# --- nothing runs, nothing leaves the shard ---------------------------------------------------------------------------


@both
@pytest.mark.parametrize("kind", ["pyd", "pkl", "pickle", "pth", "pt", "npy", "npz", "ten", "PYD", "x.pkl"])
def test_pickles_are_never_opened(tmp_path: Path, read, kind: str) -> None:
    canary = tmp_path / "canary"
    members = [*sample("a"), *sample("b"), (f"b.{kind}", pickled(Payload(canary))), *sample("c")]
    examples, faults = read(plain_tar(tmp_path / "x.tar", members))
    assert keys(examples) == ["a", "c"] and not canary.exists()
    assert [(f.key, f.reason) for f in faults] == [("b", "member that could run code")]


@both
@pytest.mark.parametrize("name", ["../b", "/tmp/b", "x/../../b", "..", "a\\b", "C:b"])
def test_names_that_leave_the_shard(tmp_path: Path, read, name: str) -> None:
    members = [*sample("a"), (f"{name}.flac", clip(0)), (f"{name}.json", b'{"labels": ["Piano"]}'), *sample("c")]
    before = sorted(p for p in tmp_path.parent.rglob("*"))
    examples, faults = read(plain_tar(tmp_path / "x.tar", members))
    assert keys(examples) == ["a", "c"]
    assert sorted(p for p in tmp_path.parent.rglob("*")) == sorted([*before, tmp_path / "x.tar"])
    assert {f.reason for f in faults} <= {"unsafe member name", "member without key or extension"} and len(faults) == 2


@both
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_not_followed(tmp_path: Path, read, kind: bytes) -> None:
    target = tmp_path / "target.flac"
    target.write_bytes(clip(0))
    link = special("b.flac", kind, str(target))
    examples, faults = read(plain_tar(tmp_path / "x.tar", [*sample("a"), link, sample("b")[1], *sample("c")]))
    assert keys(examples) == ["a", "c"] and [f.key for f in faults] == ["b"]
    assert faults[0].reason == "link or device member"


def test_split_name() -> None:
    assert split_name("a.flac") == ("a", "flac") and split_name("./x/a.seg.FLAC") == ("x/a", "seg.flac")
    for name in ("a", ".flac", "a.", ""):
        with pytest.raises(BadSample):
            split_name(name)


# --- damaged tars -----------------------------------------------------------------------------------------------------


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


# --- names of shards --------------------------------------------------------------------------------------------------


def expand(shards: str | list[str], allow_pipe: bool = False) -> list[str]:
    return expand_shards("train_shards", shards, allow_pipe, "train")


def test_names_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (str(p) for p in write_shards(tmp_path, 3, 1))
    assert expand(f"{tmp_path}/train-{{000000..000002}}.tar") == expand(f"{tmp_path}/*.tar") == [a, b, c]
    assert expand([c, f"file://{a}"]) == [c, a]
    monkeypatch.chdir(tmp_path)
    assert expand("train-000001.tar") == [b]
    monkeypatch.setattr(shards_module, "EMBEDDED", tmp_path)
    assert expand("embedded") == [a, b, c]
    assert expand("https://x.org/{a,b}.tar") == ["https://x.org/a.tar", "https://x.org/b.tar"]
    assert expand("pipe:cat {a,b}.tar", allow_pipe=True) == ["pipe:cat a.tar", "pipe:cat b.tar"]


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([], "names no shard"),
        ("", "names no shard"),
        ("none-{000..009}.tar", "no such shard: .*none-000.tar.*and 5 more"),
        ("none-*.tar", "no shard matches"),
        ("a{0..99999999}.tar", "more than 1000000"),
        ("pipe:touch canary", "set `allow_pipe` to true"),
        ("PIPE:touch canary", "set `allow_pipe` to true"),
        (["s3://bucket/a.tar"], "pipe:aws s3 cp s3://bucket/a.tar"),
        ("gs://bucket/a.tar", "cannot be opened directly"),
        ("file://host/none.tar", "no such shard"),
    ],
)
def test_names_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: str | list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InputError, FileNotFoundError), match=message) as caught:
        expand(shards)
    assert str(caught.value).startswith("train_shards: ") and not list(tmp_path.iterdir())


def test_a_shard_that_is_named_twice(tmp_path: Path) -> None:
    (shard,) = write_shards(tmp_path, 1, 1)
    (tmp_path / "link.tar").symlink_to(shard)
    for names in (
        [str(shard), str(shard)],
        [str(shard), str(tmp_path / "link.tar")],
        ["http://x/a.tar", "http://x/a.tar#b"],
    ):
        with pytest.raises(InputError, match="twice"):
            expand(names)


# --- streams ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    root = tmp_path / "www"
    root.mkdir()
    with served(root) as url:
        yield root, url


def test_http(server: tuple[Path, str]) -> None:
    root, url = server
    shards = write_shards(root, 4, 2)
    urls = expand(url + "/train-{000000..000001}.tar")
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
    monkeypatch.setattr(streamed_shards, "PAUSE", 0.0)
    monkeypatch.setattr(streamed_shards, "SILENCE", 0.5)
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
        monkeypatch.setattr(streamed_shards, "TRIES", 2)
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
    examples, faults = read_streamed(*expand(f"pipe:cat {shard}", allow_pipe=True))
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


# --- the quarantine ---------------------------------------------------------------------------------------------------


def fault(number: int, reason: str = "unusable audio", kept: bool = False) -> Fault:
    return Fault("a.tar", f"k{number}", reason, "why", kept)


def test_each_fault_is_one_line_of_the_report(tmp_path: Path) -> None:
    quarantine = Quarantine("train", 0.5, tmp_path / "logs", rank=1)
    assert not (tmp_path / "logs").exists()
    with pytest.warns(QuarantineWarning, match="unusable audio: 'k0' in shard 'a.tar'. why"):
        quarantine.note([fault(0), fault(1), fault(0), fault(2, "digital silence", kept=True)], 10)
    lines = [json.loads(line) for line in (tmp_path / "logs" / "quarantine-train-rank1.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "split": "train", "shard": "a.tar", "key": "k0", "reason": "unusable audio", "detail": "why", "kept": False,
    }  # fmt: skip
    assert [line["key"] for line in lines] == ["k0", "k1", "k2"]
    with pytest.warns(QuarantineWarning):
        Quarantine("train", 0.5, tmp_path / "logs", rank=1).note(
            [fault(0), fault(3)], 10
        )  # a second run adds what is new
    assert len((tmp_path / "logs" / "quarantine-train-rank1.jsonl").read_text().splitlines()) == 4
    with pytest.warns(QuarantineWarning) as caught:
        quarantine.finish_epoch()
    assert "3 of 10 train samples were skipped: 3 x unusable audio" in str(caught[0].message)
    assert "1 of 10 train samples were delivered with a remark" in str(caught[1].message)


@pytest.mark.filterwarnings("ignore::datamodules.shards.quarantine.QuarantineWarning")
def test_too_many_broken_samples_stop_the_run() -> None:
    quarantine = Quarantine("train", 0.1)
    quarantine.note([fault(i) for i in range(20)], 40)  # too few to judge
    with pytest.raises(
        InputError, match=r"too many broken train samples: 20 of the 60 .*max_broken_share.*20 x unusable audio.*'k0'"
    ):
        quarantine.note([], 20)
    short = Quarantine("train", 0.1)
    short.note([fault(0)], 5)
    with pytest.raises(InputError, match="1 of the 5"):
        short.finish_epoch()
    silent = Quarantine("train", 0.0)
    silent.note([fault(i, "digital silence", kept=True) for i in range(99)], 99)
    silent.finish_epoch()
    located = Quarantine("train", 0.1)
    located.located([fault(0)], 9)
    located.note([], 99)
    with pytest.raises(InputError, match="1 of 9"):
        Quarantine("train", 0.1).located([fault(0)], 8)
    with pytest.raises(InputError, match="no sample at all"):
        Quarantine("train", 1.0).located([], 0)


# --- captions ---------------------------------------------------------------------------------------------------------


def test_fifteen_templates_are_drawn_alike() -> None:
    assert len(set(TEMPLATES)) == 15 and {"a recording of a {}", "the sound of {}"} <= set(TEMPLATES)
    captions = CaptionTemplates()
    drawn = [captions.caption(["Piano"], None, generator_for(0, "x", i)) for i in range(3000)]
    counts = np.array([drawn.count(t.replace("{}", "piano")) for t in TEMPLATES])
    assert counts.sum() == 3000 and ((counts - 200) ** 2 / 200).sum() < 36.1  # chi-square, 14 degrees, p = 0.001


def test_labels_are_joined_and_stored_captions_win_by_choice() -> None:
    captions = CaptionTemplates(["[{}]"])
    draw = functools.partial(generator_for, 0)
    assert captions.caption(["Violin, fiddle", "R&B"], None, draw()) == "[violin, fiddle, R&B]"
    assert captions.caption(["Piano"], "  A sad song ", draw()) == "A sad song"
    assert captions.caption(["Piano"], " ", draw()) == "[piano]"
    assert CaptionTemplates(["[{}]"], False, False).caption(["Piano {}"], "A sad song", draw()) == "[Piano {}]"


def test_only_the_first_letter_is_lowered() -> None:
    kept = ("MIDI", "R&B", "a capella", "")
    lowered = ("Heavy metal", "Music of Latin America", "A capella", "Hip hop music", "Violin, fiddle")
    assert [lower_first(label) for label in kept] == list(kept)
    assert [lower_first(label) for label in lowered] == [label[0].lower() + label[1:] for label in lowered]


@pytest.mark.parametrize("templates", [[], ["no place"], ["{} and {}"]])
def test_bad_templates(templates: list[str]) -> None:
    with pytest.raises(InputError, match=r"caption_templates: "):
        CaptionTemplates(templates)
