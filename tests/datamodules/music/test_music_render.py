"""Rendering of notes into shards: SoundFonts, the sampler, encoding, the render command and the embedded data."""

import io
import json
import random
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import file_lock
from datamodules.music.clip import Recipe, plan
from datamodules.music.composition.events import Note, Performance, Track
from datamodules.music.render import render, render_clip
from datamodules.music.sound.encode import encode, renumbered
from datamodules.music.sound.mix import leveled, mix
from datamodules.music.sound.recording import coded
from datamodules.music.sound.soundfont import SoundFont, default_soundfont

RATE = 16_000


def test_mix_is_level_and_clickless(soundfont):
    notes = tuple(Note(i / 4, 0.3, 57 + i, 90) for i in range(8))
    loud = Performance((Track("a", 0, notes), Track("b", 0, notes[:2], level=-6)), 2.0, (0.8, 0.2))
    audio = mix(loud, SoundFont(soundfont), random.Random(0))
    assert audio.shape == (2 * RATE,)
    assert np.abs(audio).max() <= 0.8
    assert -29 < 20 * np.log10(np.std(audio)) < -13
    assert np.abs(audio[-20:]).max() < 1e-3 > np.abs(audio[:3]).max()
    assert np.abs(leveled(np.r_[1.0, np.zeros(99)], -10)).max() == pytest.approx(0.79)


@pytest.mark.parametrize("audio_format", ["flac", "ogg-vorbis", "ogg-opus", "wav"])
def test_encoding_repeats_and_decodes(audio_format):
    audio = 0.4 * np.sin(2 * np.pi * 330 * np.arange(RATE) / RATE)
    data = encode(audio, RATE, audio_format, serial=7)
    assert data == encode(audio, RATE, audio_format, serial=7)
    decoded, rate = soundfile.read(io.BytesIO(data))
    assert (rate, decoded.shape) == (RATE, (RATE,))
    assert 10 * np.log10(np.mean(audio[500:-500] ** 2) / np.mean((audio - decoded)[500:-500] ** 2)) > 12
    if audio_format.startswith("ogg"):
        assert renumbered(data, 7) == data != renumbered(data, 8)


def test_shards_do_not_depend_on_workers_and_parts(tmp_path, soundfont, capsys):
    settings = dict(clips=7, seconds=2.0, seed=5, validation=0.3, soundfonts=[soundfont], clips_per_shard=3)
    render(tmp_path / "one", workers=1, **settings)
    render(tmp_path / "two", workers=2, **settings)
    (tmp_path / "parts").mkdir()
    with file_lock(tmp_path / "parts" / "render-2of2.lock") as held:
        assert held
        with pytest.raises(InputError, match=r"another process is rendering this part into .*parts'\. Wait for it\."):
            render(tmp_path / "parts", workers=1, part="2/2", **settings)
    render(tmp_path / "parts", workers=1, part="2/2", **settings)
    assert "part 2/2, 1 of 3 shards, is finished. Parts that are not finished yet: 1/2." in capsys.readouterr().out
    render(tmp_path / "parts", workers=1, part="1/2", **settings)
    assert "7 clips (0.00 hours) in 3 shards" in capsys.readouterr().out
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert [n for n in names if n.endswith(".tar")] == ["train-000000.tar", "train-000001.tar", "validation-000000.tar"]
    for name in names:
        for other in ("two", "parts"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / other / name).read_bytes(), name
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == names


def test_render_goes_on_where_it_stopped(tmp_path, soundfont, capsys):
    settings = dict(clips=6, seconds=1.0, seed=5, validation=0.0, soundfonts=[soundfont], clips_per_shard=2, workers=1)
    render(tmp_path, **settings)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = (tmp_path / "train-000000.tar").stat().st_mtime_ns
    (tmp_path / "train-000001.index.json").unlink()
    (tmp_path / "train-000001.tar").write_bytes(b"half")
    (tmp_path / "train-000002.tar").unlink()
    (tmp_path / "train-000002.index.json").unlink()
    render(tmp_path, **settings)
    assert "1 of 3 shards are finished" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert (tmp_path / "train-000000.tar").stat().st_mtime_ns == kept
    with pytest.raises(InputError, match="another seed"):
        render(tmp_path, **{**settings, "seed": 6})


def test_render_keeps_the_byte_limit(tmp_path, soundfont):
    render(tmp_path, clips=8, seconds=1.0, validation=0.0, soundfonts=[soundfont], max_shard_bytes=120_000, workers=1)
    shards = sorted(tmp_path.glob("*.tar"))
    assert len(shards) > 1
    assert all(shard.stat().st_size <= 120_000 for shard in shards)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clips": 0}, "clips: 0"),
        ({"seconds": float("nan")}, "seconds: nan"),
        ({"seconds": 1e6}, "between 1 and 600"),
        ({"validation": 1.0}, "validation: 1.0"),
        ({"solo": -1.0}, "solo, duet, genre"),
        ({"solo": 0.0, "duet": 0.0, "genre": 0.0}, "above 0"),
        ({"renditions": 9}, "between 1 and 8"),
        ({"variety": 3.0}, "variety: 3.0; give a number between 0 and 2"),
        ({"captions": 1.5}, "captions: 1.5; give a number between 0 and 1"),
        ({"workers": -1}, "workers: -1"),
        ({"clips_per_shard": 0}, "clips_per_shard: 0"),
        ({"max_shard_bytes": 10}, "max_shard_bytes: 10"),
        ({"soundfonts": [Path(__file__)]}, "not a SoundFont"),
    ],
)
def test_bad_settings_are_refused(tmp_path, soundfont, settings, message):
    out = tmp_path / "out"
    with pytest.raises(InputError, match=message):
        render(out, **{"soundfonts": [soundfont], "workers": 1, **settings})
    assert not out.exists(), "nothing may be written before the settings are known to be good"


def test_foreign_folders_are_left_alone(tmp_path, soundfont):
    (tmp_path / "train-000000.tar").write_bytes(b"mine")
    with pytest.raises(InputError, match="did not write"):
        render(tmp_path, clips=1, soundfonts=[soundfont], workers=1)
    assert (tmp_path / "train-000000.tar").read_bytes() == b"mine"


def test_without_soundfont_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"apa_lightning\[render\]"):
        default_soundfont()


def test_variety_changes_the_sound_and_nothing_else(soundfont):
    """The notes, labels and keys of a varied clip are those of the clean one: variety is about the recording."""
    clean, varied = Recipe(4, 2.0), Recipe(4, 2.0, variety=1.0)
    different = 0
    for index in range(12):
        key, audio, metadata, _ = render_clip(clean, plan(clean, "train", index), (soundfont,), "flac")
        same_key, other, same_metadata, _ = render_clip(varied, plan(varied, "train", index), (soundfont,), "flac")
        assert (key, metadata) == (same_key, same_metadata)
        assert other == render_clip(varied, plan(varied, "train", index), (soundfont,), "flac")[1]
        different += audio != other
    assert different == 12  # the tuning alone is never exactly concert pitch


def test_an_audio_prompt_stands_next_to_its_clip(soundfont, tmp_path):
    render(tmp_path, clips=3, seconds=1.0, renditions=2, prompt_variety=2.0, soundfonts=[soundfont], workers=1)
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    clips = [name for name in files if name.endswith(".json")]
    assert len(files) == 3 * len(clips) == 6
    for name in clips:
        own, prompt = (
            soundfile.read(io.BytesIO(files[name.replace(".json", end)]))[0] for end in (".flac", ".prompt.flac")
        )
        assert len(own) == len(prompt) == RATE and not np.array_equal(own, prompt)
    render(tmp_path / "none", clips=3, seconds=1.0, soundfonts=[soundfont], workers=1)
    assert "prompts" not in json.loads((tmp_path / "none" / "render.json").read_text())
    with tarfile.open(tmp_path / "none" / "train-000000.tar") as tar:
        assert not [name for name in tar.getnames() if ".prompt." in name]


def test_coding_leaves_the_length_and_most_of_the_sound():
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    heard = [coded(tone, RATE, random.Random(seed), variety=2.0) for seed in range(20)]
    changed = [audio for audio in heard if not np.array_equal(audio, tone)]
    assert 1 <= len(changed) < 20
    for audio in changed:
        assert audio.shape == tone.shape and np.corrcoef(audio, tone)[0, 1] > 0.98
    assert np.array_equal(coded(tone, RATE, random.Random(0), variety=0.0), tone)


def test_clips_render_on_one_of_several_soundfonts(soundfont):
    recipe = Recipe(4, 1.0)
    other = soundfont.with_name("other.sf2")
    other.write_bytes(soundfont.read_bytes())
    used = Counter(
        render_clip(recipe, plan(recipe, "train", i), (soundfont, other), "flac")[2]["soundfont"] for i in range(40)
    )
    assert set(used) == {soundfont.stem, "other"} and min(used.values()) > 8


def test_the_shipped_soundfont_has_a_name(tmp_path):
    render(tmp_path, clips=1, seconds=1.0, validation=0.0, soundfonts=[Path("pretty_midi")], workers=1)
    assert json.loads((tmp_path / "render.json").read_text())["soundfonts"][0]["name"] == default_soundfont().name
