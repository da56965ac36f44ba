"""Encoded windows: what the frozen parts say, made once, refused where made of something else."""

import os
import resource
import shutil

import pytest
import torch
from pocket_tools import pocket_folder, tone_shards, with_untrained_unet
from shard_tools import encode, plain_tar, sample
from torch.utils.data import DataLoader

from apa_lightning import AudioMAE
from apa_lightning.audio import load_audio
from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.errors import InputError
from apa_lightning.pocket import window_encoder
from datamodules import encoded_windows
from datamodules.encoded import EncodedDataModule
from datamodules.loading.readers import collate
from datamodules.shards.index import read_index
from datamodules.shards.quarantine import QuarantineWarning
from datamodules.shards.writer import ShardWriter

WINDOW = 81_920
PROMPTS = [(0, WINDOW), (WINDOW, 8 * 16_000 - WINDOW), (0, WINDOW - 100)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six training clips of 8 s in two shards, two validation clips."""
    folder = tmp_path_factory.mktemp("shards")
    tone_shards(folder, "train", 6, seconds=8.0)
    tone_shards(folder, "validation", 2, seconds=8.0)
    return folder


def data(shards, cache, **options) -> EncodedDataModule:
    options = {"folder": pocket_folder(), "batch_size": 2, **options}
    return EncodedDataModule(
        train_shards=f"{shards}/train-*.tar", validation_shards=f"{shards}/validation-*.tar", cache=cache, **options
    )


@pytest.fixture(scope="module")
def encoded(shards, tmp_path_factory) -> EncodedDataModule:
    module = data(shards, tmp_path_factory.mktemp("encoded"))
    module.prepare_data()
    module.setup("fit")
    return module


def test_windows_hold_what_an_adapter_s_training_hears(encoded, shards, tmp_path):
    windows = DataLoader(encoded._windows["train"], batch_size=12, collate_fn=collate)
    batch = next(iter(windows))["batch"]
    assert batch["mean"].shape == batch["std"].shape == (12, 8, 128, 16) and batch["mean"].dtype == torch.float16
    assert batch["key"][:4] == ["train-clip_0", "train-clip_0", "train-clip_1", "train-clip_1"]
    assert batch["labels"][2] == ["Violin, fiddle"] and "violin, fiddle" in batch["prompt"][2]

    shard = shards / "train-000000.tar"
    member = next(m for m in read_index(shard).members if m.name == "train-clip_1.flac")
    waveform = load_audio(shard.read_bytes()[member.offset : member.offset + member.size])[0][0]
    whole, end = waveform[None, :WINDOW], waveform[None, WINDOW:]
    padded = torch.nn.functional.pad(end, (0, WINDOW - end.shape[1]))
    with_untrained_unet(pocket_folder(), tmp_path / "whole")
    backbone = AudioLDM2Backbone.from_pretrained(tmp_path / "whole")
    hear = AudioMAE.from_pretrained(pocket_folder() / "audio_encoder")
    for row, window, length in ((2, whole, WINDOW), (3, padded, end.shape[1])):
        mean, std = backbone.encode_moments(window, [length])
        expected = {"mean": mean, "std": std, "grid": hear(window, lengths=[length])}
        for name, values in expected.items():
            torch.testing.assert_close(batch[name][row].float(), values[0], rtol=2e-3, atol=2e-3)


def test_audio_prompts_have_grids_of_their_own(tmp_path):
    time, lengths = torch.arange(8 * 16_000) / 16_000, {"b": 8 * 16_000, "c": WINDOW - 100}
    target, other = (0.3 * torch.sin(2 * torch.pi * pitch * time).numpy() for pitch in (220, 330))
    with ShardWriter(tmp_path / "train-{:06d}.tar") as writer:
        for key in "abc":  # one without, one with a prompt of its own, one whose prompt ends in the first window
            prompt = encode(other[: lengths[key]]) if key in lengths else None
            writer.write(key, encode(target), "flac", {"labels": ["Piano"]}, prompt)
    module = EncodedDataModule(pocket_folder(), f"{tmp_path}/train-*.tar", None, tmp_path / "cache", batch_size=5)
    module.prepare_data()
    module.setup("fit")
    windows = module._windows["train"]
    batch = next(iter(DataLoader(windows, batch_size=5, collate_fn=collate)))["batch"]
    assert batch["key"] == ["a", "a", "b", "b", "c"]
    assert torch.equal(batch["prompt_grid"][:2], batch["grid"][:2])  # a is its own audio prompt
    hear = AudioMAE.from_pretrained(pocket_folder() / "audio_encoder")
    stored = load_audio(encode(other))[0]
    cut = [stored[:, start : start + length] for start, length in PROMPTS]
    for row, (waveform, (_, length)) in enumerate(zip(cut, PROMPTS, strict=True), start=2):
        padded = torch.nn.functional.pad(waveform, (0, WINDOW - waveform.shape[1]))
        expected = hear(padded, lengths=[length])[0]
        torch.testing.assert_close(batch["prompt_grid"][row].float(), expected, rtol=2e-3, atol=2e-3)
        assert not torch.allclose(batch["grid"][row].float(), expected, atol=0.05)
    assert "prompt_grid" not in windows[0].example


def test_prompts_change_and_order_repeats(encoded):
    def epoch(number: int) -> list[dict]:
        loader = encoded.train_dataloader()
        loader.set_epoch(number)
        return list(loader)

    first, again, second = epoch(0), epoch(0), epoch(1)
    keys, prompts = ([row for b in first for row in b[name]] for name in ("key", "prompt"))
    assert len(first) == 6 and len(set(keys)) == 6 and all(keys.count(key) == 2 for key in keys)
    assert prompts == [prompt for b in again for prompt in b["prompt"]]
    assert keys != [key for b in second for key in b["key"]]
    prompts_of_a_window = {encoded._windows["train"][(epoch, 0)].example["prompt"] for epoch in range(5)}
    assert len(prompts_of_a_window) > 1
    validation = [key for b in encoded.val_dataloader() for key in b["key"]]
    assert validation == ["validation-clip_0", "validation-clip_1"]  # one window of each clip


def test_an_interrupted_run_goes_on_and_does_nothing_twice(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(encoded_windows, "PIECE", 2)
    encode, calls = window_encoder.WindowEncoder.__call__, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(self, *arguments)

    monkeypatch.setattr(window_encoder.WindowEncoder, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data(shards, tmp_path, validation_clips=2).prepare_data()
    done = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert sorted(done) == ["train-000000-0000.safetensors", "validation-000000-0000.safetensors"]
    with pytest.raises(InputError, match="lacks encodings"):
        data(shards, tmp_path).setup("fit")
    data(shards, tmp_path).prepare_data()
    assert len(list(tmp_path.iterdir())) == 4 and len(calls) == 5
    assert done.items() <= {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}.items()
    data(shards, tmp_path).prepare_data()
    assert len(calls) == 5


def test_a_disk_that_takes_no_more_is_named_and_leaves_no_half_file(shards, tmp_path):
    module = data(shards, tmp_path)  # the pocket is made here, without the limit
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(OSError, match=r"validation-000000-0000\.safetensors"):
            module.prepare_data()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_few_clips_need_few_encodings(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(encoded_windows, "PIECE", 2)
    module = data(shards, tmp_path, clips=3, windows_per_clip=1)
    module.prepare_data()
    module.setup("fit")
    assert len(list(tmp_path.glob("train-*"))) == 2 and len(module._windows["train"]) == 3


def test_encodings_of_something_else_are_refused(encoded, shards, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(pocket_folder() / "vae", other / "vae")
    os.symlink(pocket_folder() / "audio_encoder", other / "audio_encoder")
    config = other / "vae" / "config.json"
    config.write_text(config.read_text().replace('"scaling_factor": 0.4', '"scaling_factor": 0.5'))
    cache = encoded.cache
    with pytest.raises(InputError, match=r"cache: .*was made with another vae or audio_encoder.*Remove"):
        data(shards, cache, folder=other).prepare_data()
    with pytest.raises(InputError, match=r"cache: .*was made with another windows_per_clip"):
        data(shards, cache, windows_per_clip=1).prepare_data()
    tone_shards(tmp_path, "train", 5)
    with pytest.raises(InputError, match=r"cache: .*was made with other clips"):
        EncodedDataModule(pocket_folder(), f"{tmp_path}/train-*.tar", None, cache).prepare_data()
    shutil.copytree(cache, tmp_path / "damaged")
    (tmp_path / "damaged" / "train-000000-0000.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"damaged/train-000000-0000.safetensors holds no encodings"):
        data(shards, tmp_path / "damaged").prepare_data()


def test_mistakes_are_named(shards, tmp_path):
    for name in ("clips", "validation_clips", "windows_per_clip", "batch_size"):
        with pytest.raises(InputError, match=rf"^{name}: 0; give a whole number of at least 1"):
            data(shards, tmp_path, **{name: 0})
    with pytest.raises(InputError, match="num_workers: -1"):
        data(shards, tmp_path, num_workers=-1)
    with pytest.raises(FileNotFoundError, match="no shard matches"):
        EncodedDataModule(pocket_folder(), f"{tmp_path}/none-*.tar", None, tmp_path).prepare_data()
    with pytest.raises(InputError, match=r"lacks vae, audio_encoder.*configs/pocket/vae.yaml"):
        data(shards, tmp_path, folder=tmp_path).prepare_data()
    with pytest.raises(InputError, match=r"train_shards: https://x/a.tar is not local"):
        EncodedDataModule(pocket_folder(), "https://x/a.tar", None, tmp_path).prepare_data()
    broken = plain_tar(tmp_path / "train-000009.tar", [("a.flac", b"no sound"), sample("a")[1]])
    with pytest.warns(QuarantineWarning, match="unusable audio"), pytest.raises(InputError, match="broken"):
        EncodedDataModule(pocket_folder(), str(broken), None, tmp_path / "cache").prepare_data()
