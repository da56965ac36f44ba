"""The embedded data: its index, labels and sound, and that it can be made again."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from apa_lightning.errors import InputError
from datamodules.music.clip import Recipe, plan
from datamodules.music.composition.grooves import GENRES
from datamodules.music.composition.instruments import INSTRUMENTS
from datamodules.music.render import render_clip
from datamodules.music.sound.soundfont import default_soundfont

RATE = 16_000
EMBEDDED = Path(__file__).parents[3] / "datamodules" / "embedded"


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
