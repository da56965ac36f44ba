"""Reading shards: what is whole arrives, what is broken is named, nothing runs."""

import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from markers import Payload, pickled
from shard_tools import both, clip, decoder, encode, keys, plain_tar, read_indexed, sample, special, tone, write_shards

from datamodules.shards.indexed import IndexedShards
from datamodules.shards.samples import BadSample, split_name
from datamodules.shards.table import SampleTable


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
        ("opus", 48_000, 2, "OPUS"), ("aiff", 44_100, 1, "PCM_16"), ("caf", 44_100, 2, "PCM_24"), ("au", 8_000, 1, "ULAW"),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, read, kind: str, rate: int, channels: int, subtype: str | None) -> None:
    audio = encode(tone(1.5, rate, channels=channels), rate, "ogg" if kind == "opus" else kind, subtype)
    shard = plain_tar(tmp_path / "a.tar", [(f"a.{kind.upper()}", audio), sample("a")[1]])
    (example,), faults = read(shard)
    assert not faults and example["waveform"].shape == (16_000,)
    assert 0.4 < example["waveform"].abs().max() < 0.6
    assert torch.fft.rfft(example["waveform"]).abs().argmax() == 440


def test_a_stereo_model_gets_both_channels_in_their_order() -> None:
    left, right = tone(1.5, 44_100), tone(1.5, 44_100, 660.0)
    decode = replace(decoder(), channels=2)
    for wave, pitches in ((np.stack([left, right], axis=1), [440, 660]), (right, [660, 660])):
        (example,) = decode.windows("a", 1, encode(wave, 44_100))
        assert example["waveform"].shape == (2, 16_000) and example["num_samples"] == 16_000
        assert torch.fft.rfft(example["waveform"]).abs().argmax(dim=1).tolist() == pitches


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
def test_audio_that_a_dot_adds_to_a_sample_is_named_once(tmp_path: Path, read) -> None:
    members = [*sample("a"), *sample("a.remix", 1), *sample("b"), *sample("b.remix", 2), *sample("c")]
    examples, faults = read(plain_tar(tmp_path / "x.tar", members))
    assert keys(examples) == ["a", "b", "c"]
    assert [(f.key, f.reason, f.kept) for f in faults] == [("a", "dot in a key", True)]
    assert "'a.remix.flac' belongs to 'a', because a key ends at its first dot" in faults[0].detail


@both
def test_keys_with_dots_are_named(tmp_path: Path, read) -> None:
    dotted = [("song_30.000", 0), ("song_30.500", 1), ("tune.v1", 2)]
    members = [member for key, number in dotted for member in sample(key, number)]
    examples, faults = read(plain_tar(tmp_path / "x.tar", [*sample("a"), *members, *sample("song_30.700", 3)]))
    assert keys(examples) == ["a"]
    assert [(f.key, f.reason) for f in faults] == [
        ("song_30", "dot in a key"), ("tune", "dot in a key"), ("song_30", "duplicate key"),
    ]  # fmt: skip
    assert all("a key ends at its first dot" in f.detail for f in faults) and "'song_30.000.flac'" in faults[0].detail


@both
@pytest.mark.parametrize(
    ("members", "delivered", "quarantined"),
    [
        ([sample("b")[0]], [], {"b": "sample without JSON"}),
        ([sample("b")[1]], [], {"b": "sample without audio"}),
        ([("b.m4a", b"x"), sample("b")[1]], [], {"b": "sample without audio"}),
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
