"""Samples with an audio prompt other than the target: which member it is, where it is cut, what is broken."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from shard_tools import both, clip, decoder, encode, keys, plain_tar, read_indexed, read_streamed, sample, tone

from datamodules.shards.index import index_path
from datamodules.shards.table import SampleTable
from datamodules.shards.writer import ShardWriter

PIANO = b'{"labels": ["Piano"]}'


def pitch(waveform: torch.Tensor) -> int:
    """In Hz, of a window of one second."""
    return int(torch.fft.rfft(waveform).abs().argmax())


def ramp(seconds: float, height: float = 0.3) -> bytes:
    """A WAV whose value tells the time."""
    return encode(height * np.arange(round(seconds * 16_000)) / 16_000, kind="wav", subtype="FLOAT")


@both
@pytest.mark.parametrize("indexed", [True, False])
def test_pairs_and_other_samples_share_a_shard(tmp_path: Path, read, indexed: bool) -> None:
    with ShardWriter(tmp_path / "a-{:d}.tar") as writer:
        writer.write("a", clip(0), "flac", {"labels": ["Piano"]}, prompt=clip(20))
        writer.write("b", clip(1), "flac", {"labels": ["Piano"]})
        writer.write("c", clip(2), "flac", {"labels": ["Piano"]}, prompt=clip(22))
    if not indexed:
        index_path(writer.shards[0]).unlink()
    examples, faults = read(*writer.shards)
    assert keys(examples) == ["a", "b", "c"] and not faults
    assert [pitch(e["waveform"]) for e in examples] == [200, 210, 220]
    assert ["prompt_waveform" in e for e in examples] == ["prompt_num_samples" in e for e in examples] == [1, 0, 1]
    assert [pitch(e["prompt_waveform"]) for e in (examples[0], examples[2])] == [400, 420]


@both
@pytest.mark.parametrize("name", ["a.prompt.wav", "a.Prompt.WAV", "a.prompt.ogg", "a.prompt.aiff", "a.prompt.opus"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_prompt_may_have_another_format_and_place(tmp_path: Path, read, name: str, place: int) -> None:
    kind = name.rpartition(".")[2].lower()
    prompt = encode(tone(1.3, 48_000, 400, 2), 48_000, *(("ogg", "OPUS") if kind == "opus" else (kind,)))
    members = sample("a")
    members.insert(place, (name, prompt))
    examples, faults = read(plain_tar(tmp_path / "x.tar", [*members, *sample("b")]))
    assert keys(examples) == ["a", "b"] and not faults
    assert examples[0]["prompt_waveform"].shape == (16_000,) and pitch(examples[0]["prompt_waveform"]) == 400


@both
def test_pairs_of_webdataset_s_own_writer(tmp_path: Path, read) -> None:
    with webdataset.TarWriter(str(tmp_path / "a.tar")) as writer:
        writer.write({"__key__": "a", "flac": clip(0), "prompt.flac": clip(20), "json": {"labels": ["Piano"]}})
    (example,), faults = read(tmp_path / "a.tar")
    assert not faults and (pitch(example["waveform"]), pitch(example["prompt_waveform"])) == (200, 400)


def test_both_are_cut_at_the_same_time() -> None:
    crop, starts = decoder(1.0, random_crop=True), []
    for epoch in range(30):
        example = crop("a", ramp(3.0), PIANO, epoch, ramp(3.0, -0.3))
        assert torch.equal(example["prompt_waveform"], -example["waveform"])
        assert torch.equal(example["waveform"], crop("a", ramp(3.0), PIANO, epoch)["waveform"])  # as without the prompt
        starts.append(float(example["waveform"][0]) / 0.3)
    assert min(starts) < 0.3 and max(starts) > 1.5


def test_the_window_lies_within_the_shorter_recording() -> None:
    crop = decoder(1.0, random_crop=True)
    for target, prompt in ((3.0, 2.0), (2.0, 3.0)):
        examples = [crop("a", ramp(target), PIANO, epoch, ramp(prompt, -0.3)) for epoch in range(30)]
        assert all(torch.equal(e["prompt_waveform"], -e["waveform"]) for e in examples)
        assert all(e["num_samples"] == e["prompt_num_samples"] == 16_000 for e in examples)
        assert 0.7 < max(float(e["waveform"][0]) for e in examples) / 0.3 <= 1.0
    example = crop("a", ramp(3.0), PIANO, 0, ramp(0.75, -0.3))
    assert (example["num_samples"], example["prompt_num_samples"]) == (16_000, 12_000)
    assert not example["prompt_waveform"][12_000:].any()
    assert torch.equal(example["prompt_waveform"][:12_000], -example["waveform"][:12_000])


def test_a_share_of_the_pairs_prompts_with_the_target() -> None:
    def drawn(share: float) -> list[dict]:
        mixed = decoder(1.0, random_crop=True, self_prompts=share)
        return [mixed("a", ramp(2.0), PIANO, epoch, ramp(2.0, -0.3)) for epoch in range(60)]

    none, some, every = drawn(0.0), drawn(0.3), drawn(1.0)
    assert [sum("prompt_waveform" in e for e in found) for found in (none, every)] == [60, 0]
    assert 30 < sum("prompt_waveform" in e for e in some) < 54
    assert ["prompt_waveform" in e for e in some] == ["prompt_waveform" in e for e in drawn(0.3)]
    for one, other in zip(none, some, strict=True):  # the draw changes neither the window nor the caption
        assert torch.equal(one["waveform"], other["waveform"]) and one["prompt"] == other["prompt"]


@both
@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (b"", "audio prompt: unusable audio"),
        (b"no sound", "audio prompt: unusable audio"),
        (clip(0)[:2000], "audio prompt: unusable audio"),
        (encode(tone(0.2)), "audio prompt: too short"),
    ],
)
def test_a_broken_prompt_is_skipped_and_named(tmp_path: Path, read, prompt: bytes, reason: str) -> None:
    members = [*sample("a"), *sample("b"), ("b.prompt.flac", prompt), *sample("c")]
    examples, faults = read(plain_tar(tmp_path / "x.tar", members))
    assert keys(examples) == ["a", "c"]
    assert [(f.key, f.reason, f.kept) for f in faults] == [("b", reason, False)] and faults[0].detail


@both
def test_a_silent_prompt_is_delivered_with_a_remark(tmp_path: Path, read) -> None:
    silent = encode(np.zeros(16_000), kind="wav")
    examples, faults = read(plain_tar(tmp_path / "x.tar", [*sample("a"), ("a.prompt.wav", silent)]))
    assert keys(examples) == ["a"] and [(f.reason, f.kept) for f in faults] == [("digital silence", True)]
    assert "its audio prompt" in faults[0].detail


@both
@pytest.mark.parametrize(
    ("members", "reason", "detail"),
    [
        (
            [*sample("b"), ("b.prompt.flac", clip(1)), ("b.prompt.wav", b"x")],
            "sample with several audio prompts",
            "prompt.flac, prompt.wav",
        ),
        ([*sample("b"), ("b.prompt.m4a", b"x")], "audio prompt in another format", "'b.prompt.m4a'; read are flac"),
        ([("b.prompt.flac", clip(1)), sample("b")[1]], "sample without audio", "it has json, prompt.flac"),
        ([*sample("b"), ("b.prompt.pkl", b"x")], "member that could run code", "'b.prompt.pkl'"),
        ([*sample("b"), ("b.prompt.flac", clip(1)), ("b.prompt.flac", clip(1))], "duplicate key", "comes twice"),
    ],
)
def test_members_that_do_not_make_a_pair(tmp_path: Path, read, members: list, reason: str, detail: str) -> None:
    examples, faults = read(plain_tar(tmp_path / "x.tar", [*sample("a"), *members, *sample("c")]))
    assert keys(examples) == ["a", "c"]
    assert [(f.key, f.reason) for f in faults] == [("b", reason)] and detail in faults[0].detail


@both
def test_a_text_named_prompt_is_another_member(tmp_path: Path, read) -> None:
    examples, faults = read(plain_tar(tmp_path / "x.tar", [*sample("a"), ("a.prompt.txt", b"a piano")]))
    assert keys(examples) == ["a"] and not faults and "prompt_waveform" not in examples[0]


@both
def test_a_prompt_that_changed_after_it_was_written_is_named(tmp_path: Path, read) -> None:
    with ShardWriter(tmp_path / "a-{:d}.tar") as writer:
        writer.write("a", clip(0), "wav", {"labels": ["Piano"]}, prompt=encode(tone(), kind="wav"))
    data = bytearray(writer.shards[0].read_bytes())
    data[data.index(b"a.prompt.wav") + 20_000] ^= 1
    writer.shards[0].write_bytes(data)
    examples, faults = read(*writer.shards)
    assert not examples and [(f.key, f.reason) for f in faults] == [("a", "checksum differs")]


def test_a_shard_without_prompts_keeps_its_digest(tmp_path: Path) -> None:
    """Checkpoints hold it: a run from before there were prompts resumes."""

    def table(**prompt: bytes) -> SampleTable:
        with ShardWriter(tmp_path / "a-{:d}.tar", overwrite=True) as writer:
            for key in "ab":
                writer.write(key, key.encode() * 700, "flac", {"labels": ["Piano"]}, **prompt)
        return SampleTable(writer.shards)

    assert table().digest() == "0903c94bc2cb5bef" and table().audio_prompts == 0
    first, second = table(prompt=b"x"), table(prompt=b"y")
    assert first.audio_prompts == 2 and first.group(1).audio_prompt.name == "b.prompt.flac"
    assert len({"0903c94bc2cb5bef", first.digest(), second.digest()}) == 3


def test_an_index_that_lists_a_prompt_beyond_the_tar_s_end_names_the_sample(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a-{:d}.tar") as writer:
        writer.write("a", clip(0), "flac", {"labels": ["Piano"]})
        writer.write("b", clip(0), "flac", {"labels": ["Piano"]}, prompt=clip(1))
    with open(writer.shards[0], "r+b") as file:
        file.truncate(SampleTable(writer.shards).group(1).audio_prompt.offset + 10)
    examples, faults = read_indexed(*writer.shards)
    assert keys(examples) == ["a"] and [f.key for f in faults] == ["b"]


def test_a_stream_that_lacks_a_prompt_of_its_index_names_the_sample(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a-{:d}.tar") as writer:
        writer.write("a", clip(0), "flac", {"labels": ["Piano"]})
        writer.write("b", clip(0), "flac", {"labels": ["Piano"]}, prompt=clip(1))
    with tarfile.open(writer.shards[0]) as tar:
        members = [(name, tar.extractfile(name).read()) for name in tar.getnames() if "prompt" not in name]
    plain_tar(writer.shards[0], members)
    examples, faults = read_streamed(*writer.shards)
    assert keys(examples) == ["a"] and [(f.key, f.detail) for f in faults] == [("b", "2 of its 3 members are there")]
