"""Cached encodings: what training without a cache computes, made once, refused where made with something else."""

import functools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from audioset_tools import attached
from fit_tools import WINDOW, build
from processes import Command
from random_folders import tiny_backbone, tiny_flags, tiny_parts
from safetensors import safe_open
from shard_tools import Ranged, clip, flip, served, write_shards

from apa_lightning.errors import InputError
from apa_lightning.module import AudioPromptModule
from datamodules import remote as remote_files
from datamodules.audioset import AudioSetDataModule
from datamodules.encoded import EncodedDataModule
from datamodules.encodings import encode, pieces, sizing
from datamodules.shards.index import index_path, read_index
from datamodules.shards.quarantine import QuarantineWarning
from datamodules.shards.writer import ShardWriter

SECONDS = 1.28  # a window of the tiny backbone


@pytest.fixture(scope="module")
def module() -> AudioPromptModule:
    return build()


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Six training clips of one window, of which every second has an audio prompt of its own; two for validation."""
    folder = tmp_path_factory.mktemp("shards")
    for name, numbers in (("train", range(6)), ("validation", range(6, 8))):
        with ShardWriter(folder / (name + "-{:06d}.tar"), max_samples=4) as writer:
            for i in numbers:
                labels = {"labels": ["Violin, fiddle" if i % 2 else "Piano"]}
                writer.write(f"clip_{i}", clip(i, SECONDS), "flac", labels, clip(i + 20, SECONDS) if i % 2 else None)
    return folder


@pytest.fixture(scope="module")
def long_shards(tmp_path_factory) -> Path:
    """Three training clips of 2.9 s."""
    folder = tmp_path_factory.mktemp("long")
    write_shards(folder, 3, 3, seconds=2.9)
    return folder


def settings(folder: Path, **options) -> dict:
    validation = f"{folder}/validation-*.tar" if list(folder.glob("validation-*")) else None
    shards = {"train_shards": f"{folder}/train-*.tar", "validation_shards": validation}
    return {**shards, "batch_size": 2, "num_workers": 0, **options}


def cached(module: AudioPromptModule, folder: Path, cache: Path, **options) -> EncodedDataModule:
    return attached(EncodedDataModule(cache=cache, **settings(folder, **options)), module)


def epochs(data: AudioSetDataModule, count: int = 2) -> list[dict]:
    """The training batches of the first epochs."""
    loader = data.train_dataloader()
    found = []
    for epoch in range(count):
        loader.set_epoch(epoch)
        found += list(loader)
    return found


def files(cache: Path) -> list[Path]:
    return sorted(cache.rglob("*.safetensors"))


def test_batches_hold_what_training_computes_by_the_same_draws(module, shards, tmp_path):
    options = {"self_prompts": 0.3, "seed": 3}
    plain = epochs(attached(AudioSetDataModule(**settings(shards, **options)), module))
    data = cached(module, shards, tmp_path, **options)
    kept = epochs(data)
    assert len(plain) == len(kept) == 6 and any("prompt_grid" in batch for batch in kept)
    draws = [torch.Generator().manual_seed(7) for _ in range(2)]
    for raw, batch in zip(plain, kept, strict=True):
        assert "waveform" not in batch and batch["grid"].dtype == batch["mean"].dtype == torch.float16
        assert ("prompt_waveform" in raw) == ("prompt_grid" in batch)
        for name in ("key", "prompt", "labels", "metadata", "start", "num_samples"):
            assert raw[name] == batch[name]
        close(module.window_encoder().target_of(batch, draws[0]), module.window_encoder().target_of(raw, draws[1]))
        close(module.window_encoder().grid_of(batch), module.window_encoder().grid_of(raw))
        prompts = ["", raw["prompt"][1]]  # the first one dropped
        text, expected = module.window_encoder().text(prompts, batch["text"]), module.backbone.encode_text(prompts)
        assert text.mask.dtype == expected.mask.dtype and text.generated.dtype == torch.float32
        close(text.generated, expected.generated)
        length = expected.encoded.shape[1]  # prompts are encoded in groups: there may be more padding
        close(text.encoded[:, :length], expected.encoded)
        assert torch.equal(text.mask[:, :length], expected.mask) and not text.mask[:, length:].any()


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=2e-3, atol=2e-3)


def test_validation_has_encodings_and_audio_for_edits(module, shards, tmp_path):
    (plain,) = attached(AudioSetDataModule(**settings(shards)), module).val_dataloader()
    (batch,) = cached(module, shards, tmp_path).val_dataloader()
    assert torch.equal(batch["waveform"], plain["waveform"]) and batch["key"] == plain["key"]
    assert batch["prompt"] == plain["prompt"]
    close(module.window_encoder().grid_of(batch), module.window_encoder().grid_of(plain))


def test_windows_spread_over_a_clip_and_one_is_drawn_in_each_epoch(module, long_shards, tmp_path):
    data = cached(module, long_shards, tmp_path, batch_size=3)
    found = epochs(data, 12)
    for key in found[0]["key"]:
        own = [(b["start"][i], b["prompt"][i]) for b in found for i in range(3) if b["key"][i] == key]
        starts = {start for start, _ in own}
        assert len(own) == 12 and len(starts) > 1 and len({prompt for _, prompt in own}) > 3
        quarters = {int(4 * start / 1.62) for start in starts}  # clips of 2.9 s, a window of 1.28 s: one start in each
        assert len(quarters) == len(starts) and quarters <= set(range(4))
    assert len({start for batch in found for start in batch["start"]}) > 4  # another in each clip
    decode = data._decoder(training=True)
    key = found[0]["key"][0]
    window = next(w for w in decode.windows(key, 4, clip(int(key[-3:]), 2.9)) if w["start"] == found[0]["start"][0])
    expected = module.window_encoder().grid(window["waveform"][None], [window["num_samples"]])
    close(found[0]["grid"][:1].float(), expected)
    assert len(cached(module, long_shards, tmp_path / "two", windows_per_clip=2)._pieces["train"]) == 1
    with safe_open(files(tmp_path / "two")[0], "pt") as file:
        assert file.get_slice("mean").get_shape()[0] == 6


def test_broken_clips_are_reported_and_replaced_as_without_a_cache(module, tmp_path):
    write_shards(tmp_path, 5, 5, seconds=SECONDS)
    shard = tmp_path / "train-000000.tar"
    member = next(m for m in read_index(shard).members if m.name == "train002.flac")
    flip(shard, member.offset + 50)
    options = {"max_broken_share": 0.5, "batch_size": 1}
    with pytest.warns(QuarantineWarning, match="checksum differs"):
        plain = epochs(attached(AudioSetDataModule(**settings(tmp_path, **options)), module))
        data = cached(module, tmp_path, tmp_path / "cache", **options)
    data = cached(module, tmp_path, tmp_path / "cache", **options)  # nothing is encoded now
    with pytest.warns(QuarantineWarning, match="checksum differs"):
        kept = epochs(data)
    assert [b["key"] for b in plain] == [b["key"] for b in kept] and len(kept) == 10
    assert {fault.key for fault in data.quarantines["train"].faults.values()} == {"train002"}
    with pytest.warns(QuarantineWarning), pytest.raises(InputError, match="too many broken train samples"):
        cached(module, tmp_path, tmp_path / "strict")


def test_an_interrupted_encoding_resumes_and_repeats_nothing(module, shards, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "CLIPS", 2)
    write, written = encode.write_piece, []

    def interrupted(path, *rest):
        written.append(path)
        if len(written) == 3:
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setattr(encode, "write_piece", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cached(module, shards, tmp_path)
    done = {path: path.stat().st_mtime_ns for path in files(tmp_path)}
    assert len(done) == 2
    cached(module, shards, tmp_path)
    assert len(files(tmp_path)) == 4 and len(written) == 5
    assert all(path.stat().st_mtime_ns == time for path, time in done.items())
    cached(module, shards, tmp_path)
    assert len(written) == 5
    assert not list(tmp_path.rglob("*.lock"))


def test_only_clips_that_changed_are_encoded_again(module, shards, tmp_path):
    folder = tmp_path / "shards"
    shutil.copytree(shards, folder)
    cached(module, folder, tmp_path / "cache")
    before = files(tmp_path / "cache")
    write_shards(folder, 1, 4, first=9, name="train-000001-x", seconds=SECONDS)  # a further shard
    index_path(folder / "train-000000.tar").unlink()  # without it, a change of the shard shows by its time
    cached(module, folder, tmp_path / "cache")
    more = [path.name[:12] for path in files(tmp_path / "cache") if path not in before]
    assert len(before) == 3 and sorted(more) == ["train-000000", "train-000001"]


def test_encodings_of_something_else_are_refused(module, shards, tmp_path):
    cache = tmp_path / "cache"
    cached(module, shards, cache)
    for options, words in (
        ({"windows_per_clip": 2}, "another windows_per_clip, audio_length_in_s"),
        ({"min_seconds": 0.7}, "another windows_per_clip, audio_length_in_s, sample_rate or min_seconds"),
        ({"caption_templates": ["{}!"]}, "other caption_templates"),
    ):
        with pytest.raises(InputError, match=rf"cache: .*was made with {words}.*data\.cache"):
            cached(module, shards, cache, **options)

    other = tmp_path / "other"
    shutil.copytree(tiny_backbone(WINDOW), other)
    scaled = json.loads((other / "vae" / "config.json").read_text()) | {"scaling_factor": 0.3}
    (other / "vae" / "config.json").write_text(json.dumps(scaled))
    parts = tiny_parts(WINDOW)
    with pytest.raises(InputError, match=r"cache: .*other settings of the backbone.*mean of clip 'clip_\d' differs"):
        cached(AudioPromptModule(**{**parts, "backbone": str(other)}), shards, cache)
    changed = build()
    with torch.no_grad():
        next(iter(changed.backbone.text_encoder_2.parameters()))[0, 0] += 0.01
    with pytest.raises(InputError, match="was made with another backbone or audio encoder, or in another precision"):
        cached(changed, shards, cache)
    with pytest.raises(InputError, match="was made with another backbone or audio encoder"):
        cached(AudioPromptModule(**parts, loa_layers="mean_last_three"), shards, cache)
    with torch.no_grad():  # the U-Net encodes nothing
        next(iter(module.backbone.unet.parameters())).add_(0.0)
    files(cache)[0].write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"\.safetensors holds no encodings"):
        cached(module, shards, cache)


def test_the_room_is_told_before_and_a_small_disk_is_refused(module, shards, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(sizing.shutil, "disk_usage", lambda path: SimpleNamespace(free=50_000))
    with pytest.raises(InputError, match=r"cache: the encodings of 8 clips need about .* has 50 kB free"):
        cached(module, shards, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
    monkeypatch.undo()
    with caplog.at_level("INFO", "lightning.pytorch"):
        cached(module, shards, tmp_path / "cache")
    (told,) = [message for message in caplog.messages if "need about" in message]
    number, unit = told.split("need about ")[1].split()[:2]
    size = float(number) * {"kB": 1e3, "MB": 1e6}[unit]
    assert size == pytest.approx(sum(path.stat().st_size for path in files(tmp_path)), rel=0.15)


@pytest.mark.parametrize(
    "size, words", [(2.1e12, "2.1 TB"), (34.4e6, "34.4 MB"), (999_000, "999 kB"), (1.5e9, "1.5 GB")]
)
def test_sizes_in_words(size, words):
    assert sizing.in_bytes(size) == words


def test_shards_on_a_server_are_encoded_as_local_ones(module, shards, tmp_path, monkeypatch):
    local = epochs(cached(module, shards, tmp_path / "local"))
    asked = []
    with served(shards, functools.partial(Ranged, asked=asked)) as url:
        names = {"train_shards": f"{url}/train-{{000000..000001}}.tar", "validation_shards": None}
        data = cached(module, shards, tmp_path / "remote", **names)
        asked.clear()
        remote = epochs(data)
        assert not asked  # training reads the encodings alone
    assert [path.read_bytes() for path in files(tmp_path / "local/train")] == [
        path.read_bytes() for path in files(tmp_path / "remote/train")
    ]
    for ours, theirs in zip(remote, local, strict=True):
        assert ours["key"] == theirs["key"] and torch.equal(ours["mean"], theirs["mean"])

    class Breaks(Ranged):
        """Gives the index and the headers, and no clip."""

        def answer(self, data: bytes) -> None:
            if len(data) > 512:
                self.close_connection = True
            else:
                super().answer(data)

    monkeypatch.setattr(remote_files, "PAUSE", 0.0)
    monkeypatch.setattr(remote_files, "TRIES", 2)
    with (
        served(shards, Breaks) as url,
        pytest.raises(InputError, match=r"shard 'http.*000.tar' cannot be read: .*what is encoded is kept"),
    ):
        cached(module, shards, tmp_path / "broken", **{**names, "train_shards": f"{url}/train-000000.tar"})


def test_mistakes_are_named(module, shards, tmp_path):
    with pytest.raises(InputError, match="windows_per_clip: 0; give a whole number of at least 1"):
        EncodedDataModule(windows_per_clip=0)
    with pytest.raises(InputError, match=r"cache: null means next to the shards, and 'https://x/a.tar' is remote"):
        cached(module, shards, None, train_shards="https://x/a.tar")
    with (
        served(shards) as url,
        pytest.raises(InputError, match=r"train_shards: shards that can only be streamed cannot"),
    ):
        cached(module, shards, tmp_path, train_shards=f"{url}/train-000000.tar")
    with pytest.raises(InputError, match=r"data.class_path: .* SimpleNamespace has no window_encoder"):
        cached(SimpleNamespace(configure_model=lambda: None), shards, tmp_path)
    with pytest.raises(
        InputError, match=r"audio_length_in_s: clips of 1\.00 s do not fit the backbone's window of 1\.28 s"
    ):
        cached(module, shards, tmp_path, audio_length_in_s=1.0)


def fit(shards: Path, folder: Path, name: str, *more: object, before=lambda: None, **options) -> Command:
    """`fit` of base.yaml with the overlay of the cache, on tiny parts."""
    overlays = [part for file in ("base", "data/encoded") for part in ("--config", f"configs/{file}.yaml")]
    return Command(
        [
            "fit", *overlays, "--config", "tests/small.yaml", *tiny_flags(WINDOW), "--trainer.callbacks=[]",
            f"--data.train_shards={shards}/train-*.tar", f"--data.validation_shards={shards}/validation-*.tar",
            f"--data.cache={folder}/cache", f"--trainer.default_root_dir={folder}/{name}", "--trainer.max_steps=2",
            "--trainer.val_check_interval=2", "--data.caption_templates=['a {}']", *more,
        ],
        folder / f"{name}.log", before=before, **options,
    )  # fmt: skip


def test_processes_share_the_work_and_a_killed_one_loses_one_piece(tmp_path):
    write_shards(tmp_path, 8, 4, seconds=SECONDS)
    write_shards(tmp_path, 2, 2, "validation", first=50, seconds=SECONDS)
    diary = tmp_path / "diary"

    def noted() -> None:
        pieces.CLIPS = 1
        write = encode.write_piece

        def write_noted(path, *rest):
            write(path, *rest)
            with open(diary, "a") as file:
                file.write(f"{path.name}\n")

        encode.write_piece = write_noted

    killed = fit(tmp_path, tmp_path, "killed", before=noted)
    assert killed.wait_until(lambda: diary.exists() and len(diary.read_text().split()) > 1)
    killed.kill()
    killed.wait()
    before = {path: path.stat().st_mtime_ns for path in files(tmp_path / "cache")}
    assert 2 <= len(before) < 10
    diary.unlink()
    both = [fit(tmp_path, tmp_path, "two", before=noted, ranks=2), fit(tmp_path, tmp_path, "one", before=noted)]
    assert [command.wait() for command in both] == [0, 0], both[0].output + both[1].output
    made = diary.read_text().split()
    assert len(files(tmp_path / "cache")) == 10 and len(made) == len(set(made)) == 10 - len(before)  # nothing twice
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert not list(tmp_path.rglob("*.lock"))
