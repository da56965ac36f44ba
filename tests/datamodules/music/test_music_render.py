"""Rendering of notes into shards: SoundFonts, the sampler, encoding, the render command and the embedded data."""

import hashlib
import io
import json
import random
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from soundfont_tools import write_soundfont

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import file_lock
from datamodules.music.clip import Recipe, plan
from datamodules.music.composition.events import Note, Performance, Track
from datamodules.music.composition.grooves import GENRES
from datamodules.music.composition.instruments import INSTRUMENTS
from datamodules.music.render import render, render_clip
from datamodules.music.sound import modulators
from datamodules.music.sound.encode import encode, renumbered
from datamodules.music.sound.mix import leveled, mix
from datamodules.music.sound.recording import coded
from datamodules.music.sound.sampler import OVERSAMPLING, render_track
from datamodules.music.sound.soundfont import SoundFont, default_soundfont

EMBEDDED = Path(__file__).parents[3] / "datamodules" / "embedded"
RATE = 16_000


@pytest.fixture(scope="module")
def soundfont(tmp_path_factory):
    return write_soundfont(tmp_path_factory.mktemp("soundfont") / "tiny.sf2")


def played(path: Path, *notes: Note, seconds: float = 1.0) -> np.ndarray:
    return render_track(SoundFont(path), Track("lead", 0, notes), seconds, RATE)


def pitch(audio: np.ndarray) -> float:
    """Hertz of the strongest partial."""
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 2**19))
    return float(np.argmax(spectrum)) * RATE * OVERSAMPLING / 2**19


@pytest.mark.parametrize("key", [33, 57, 69, 81, 93])
def test_notes_sound_at_their_pitch(soundfont, key):
    audio = played(soundfont, Note(0.0, 1.0, key, 100))
    assert 1200 * abs(np.log2(pitch(audio[4000:28000]) / (440 * 2 ** ((key - 69) / 12)))) < 3


def test_an_ensemble_off_concert_pitch(soundfont):
    track = Track("lead", 0, (Note(0.0, 1.0, 69, 100),))
    sharp, drums = (
        render_track(SoundFont(soundfont), replace(track, drums=drums), 1.0, RATE, tuning=30.0)
        for drums in (False, True)
    )
    assert 1200 * np.log2(pitch(sharp[4000:28000]) / 440) == pytest.approx(30, abs=3)
    assert np.array_equal(drums, render_track(SoundFont(soundfont), replace(track, drums=True), 1.0, RATE))


def test_bends_swells_and_velocity(soundfont):
    bent = played(soundfont, Note(0.0, 1.0, 69, 100, glide=((0.0, 0.0), (0.4, 200.0))))
    assert 1200 * np.log2(pitch(bent[16000:30000]) / 440) == pytest.approx(200, abs=5)
    swell = played(soundfont, Note(0.0, 1.0, 69, 100, swell=(-12.0, 0.0)))
    assert np.std(swell[28000:31000]) > 2.5 * np.std(swell[1000:3000])
    both = played(soundfont, Note(0.0, 0.4, 69, 40), Note(0.5, 0.4, 69, 110))
    quieter = 20 * np.log10(np.std(both[18000:26000]) / np.std(both[2000:10000]))
    assert quieter == pytest.approx(40 * np.log10(110 / 40), abs=1)


def test_notes_end_when_they_are_released(soundfont):
    audio = played(soundfont, Note(0.1, 0.4, 60, 100))
    assert np.abs(audio[: int(0.09 * 2 * RATE)]).max() == 0
    assert np.abs(audio[int(0.52 * 2 * RATE) :]).max() == 0
    assert np.std(audio[int(0.15 * 2 * RATE) : int(0.45 * 2 * RATE)]) > 0.02


def test_high_notes_do_not_alias(soundfont):
    """A sawtooth at 3.5 kHz has no energy below its fundamental."""
    from scipy.signal import resample_poly

    audio = resample_poly(played(soundfont, Note(0.0, 1.0, 105, 100)), 1, OVERSAMPLING)[2000:14000]
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)))) ** 2
    below = spectrum[20 : int(0.9 * len(audio) * 3520 / RATE)].sum()  # Without the sawtooth's offset.
    assert 10 * np.log10(below / spectrum.sum()) < -40


def test_low_pass_generators_darken(tmp_path, soundfont):
    dark = write_soundfont(tmp_path / "dark.sf2", [(8, 7000)])  # 466 Hz.
    opening = write_soundfont(tmp_path / "opening.sf2", [(8, 5000), (11, 6000), (26, 0)])  # Opens within a second.
    bright, dull, moving = (played(path, Note(0.0, 1.0, 45, 127)) for path in (soundfont, dark, opening))

    def brightness(audio: np.ndarray) -> float:
        spectrum = np.abs(np.fft.rfft(audio)) ** 2
        return float((spectrum * np.arange(len(spectrum))).sum() / spectrum.sum())

    assert brightness(dull) < 0.5 * brightness(bright)
    assert brightness(moving[20000:30000]) > 1.5 * brightness(moving[2000:12000])


def test_modulators_follow_the_standard_curves():
    attenuation = (0x0502, 48, 960, 0)
    assert modulators.offset(attenuation, 60, 127) == pytest.approx(0)
    assert modulators.offset(attenuation, 60, 64) == pytest.approx(400 * np.log10(127 / 64), rel=1e-6)
    assert modulators.offset((0x0002, 8, 1200, 0), 60, 127) == 1200
    assert modulators.offset((0x0102, 8, -2400, 0x0D02), 60, 127) == 0
    assert modulators.offset((0x0081, 6, 50, 0), 60, 100) == 0, "wheels rest"
    assert modulators.offset((0x0203, 51, 10, 0), 0, 64) == -10
    assert modulators.merged([attenuation], [(0x0502, 48, 500, 0)]) == ((0x0502, 48, 500, 0),)


def test_missing_pad_bytes_are_forgiven(tmp_path):
    path = write_soundfont(tmp_path / "odd.sf2", pad=False)
    assert SoundFont(path).regions(0, 60, 100)


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\x10\0\0\0sfbkLIST", random.Random(0).randbytes(5000)])
def test_other_files_are_no_soundfonts(tmp_path, content):
    path = tmp_path / "bad.sf2"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.sf2.* not a SoundFont"):
        SoundFont(path)


def test_truncated_soundfonts_are_refused(tmp_path, soundfont):
    data = soundfont.read_bytes()
    for size in (100, 3000, len(data) // 2, len(data) - 40):
        path = tmp_path / "cut.sf2"
        path.write_bytes(data[:size])
        with pytest.raises(InputError):
            SoundFont(path).regions(0, 60, 100)


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


@pytest.fixture(scope="module")
def embedded() -> dict[str, tuple[str, dict, bytes]]:
    """key -> (shard's name, metadata, audio file)."""
    samples = {}
    for shard in sorted(EMBEDDED.glob("*.tar")):
        with tarfile.open(shard) as tar:
            files = {member.name: tar.extractfile(member).read() for member in tar}
        for name, data in files.items():
            key, _, extension = name.partition(".")
            if extension == "json":
                samples[key] = (shard.name, json.loads(data), files[f"{key}.ogg"])
    return samples


def test_embedded_indices_match_the_bytes():
    shards = sorted(EMBEDDED.glob("*.tar"))
    assert sum(shard.name.startswith("train") for shard in shards) >= 4
    assert sum(shard.name.startswith("validation") for shard in shards) >= 2
    for shard in shards:
        data, index = shard.read_bytes(), json.loads(shard.with_suffix(".index.json").read_text())
        assert len(data) == index["bytes"] <= 6 * 2**20
        for member in index["members"]:
            piece = data[member["offset"] : member["offset"] + member["size"]]
            assert hashlib.sha256(piece).hexdigest() == member["sha256"], member["name"]
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) <= 6.5 * 2**20


def test_embedded_labels_and_splits(embedded):
    labels = {i.label for i in INSTRUMENTS.values()} | {g.label for g in GENRES.values()}
    counts: dict[str, Counter] = {"train": Counter(), "validation": Counter()}
    melodies: dict[str, set[str]] = {"train": set(), "validation": set()}
    for shard, metadata, _ in embedded.values():
        split = shard.partition("-")[0]
        counts[split].update(metadata["labels"])
        melodies[split].add(metadata["melody"])
        melodies[split].add(str([note[2] - metadata["notes"][0][2] for note in metadata["notes"]]))
    assert len(embedded) == 200
    assert set(counts["train"]) == set(counts["validation"]) == labels
    assert min(counts["train"][i.label] for i in INSTRUMENTS.values()) >= 14
    assert not melodies["train"] & melodies["validation"]


def test_embedded_audio_is_sound(embedded):
    for key in sorted(embedded)[::5]:
        audio, rate = soundfile.read(io.BytesIO(embedded[key][2]))
        assert (rate, audio.shape) == (RATE, (163_840,)), key
        assert np.abs(audio).max() < 1, key
        assert -32 < 20 * np.log10(np.std(audio)) < -12, key


def test_embedded_data_can_be_made_again(embedded):
    try:
        fonts = (default_soundfont(),)
    except InputError:
        pytest.skip("pretty_midi is not installed")
    settings = json.loads((EMBEDDED / "render.json").read_text())
    assert hashlib.sha256(fonts[0].read_bytes()).hexdigest() == settings["soundfonts"][0]["sha256"]
    recipe = Recipe(settings["seed"], settings["seconds"], tuple(settings["shares"]), settings["renditions"])
    for split, index in (("train", 4), ("validation", 1), ("train", 15)):
        key, data, metadata, _ = render_clip(recipe, plan(recipe, split, index), fonts, settings["audio_format"])
        assert metadata == embedded[key][1]
        # The bytes are equal where numpy, libsndfile and processor are; the sound is everywhere.
        again, before = (soundfile.read(io.BytesIO(d))[0] for d in (data, embedded[key][2]))
        assert np.corrcoef(again, before)[0, 1] > 0.99


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
