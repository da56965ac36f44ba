"""The commands `sizes` and `adapter`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from random_folders import tiny_backbone

from apa_lightning.backbones.architectures import TINY
from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.commands.adapter import convert
from apa_lightning.commands.sizes import sizes
from apa_lightning.errors import InputError


@pytest.fixture
def folder(tmp_path) -> Path:
    """The configuration of a U-Net whose first stream is not the audio stream."""
    with torch.device("meta"):
        unet = replace(TINY, gpt2={"n_embd": 32}, t5={"d_model": 48}).build_unet()
    unet.save_config(tmp_path / "unet")
    return tmp_path


def test_the_stream_is_as_wide_as_the_language_model(folder, capsys):
    sizes(folder=folder)
    out = capsys.readouterr().out
    assert "no language_model/config.json: the audio stream is taken to be the first, 32 wide" in out
    guessed = out.split()[-1]
    (folder / "language_model").mkdir()
    config = folder / "language_model" / "config.json"
    config.write_text(json.dumps({"n_embd": 48}))
    sizes(folder=folder)
    out = capsys.readouterr().out
    assert "taken to be" not in out
    assert int(out.split()[-1].replace(",", "")) * 2 == int(guessed.replace(",", "")) * 3
    for damaged in ("{", "[]", "{}"):
        config.write_text(damaged)
        with pytest.raises(InputError, match="it has no n_embd"):
            sizes(folder=folder)


@pytest.mark.parametrize(
    ("name", "parameters", "layers", "trained"),
    [
        ("audioldm2-large", "718,012,296", 32, "21,626,880"),
        ("stable-audio-open", "1,056,939,136", 24, "28,311,552"),
        ("musicgen-small", "419,584,000", 24, "37,748,736"),
        ("musicgen-medium", "1,837,556,736", 48, "113,246,208"),
        ("musicgen-large", "3,255,382,016", 48, "150,994,944"),
    ],
)
def test_sizes_of_the_published_models(name, parameters, layers, trained, capsys):
    sizes(name)
    title, *lines = capsys.readouterr().out.strip().splitlines()
    said = [line.split()[-1] for line in lines]
    assert title == name and said == [parameters, f"{layers}", f"{2 * layers}", trained]


def test_an_adapter_file_is_replaced_only_when_asked(tmp_path):
    source, to = tmp_path / "a.safetensors", tmp_path / "b.bin"
    backbone = tiny_backbone()
    AudioLDM2Backbone.from_pretrained(backbone).new_adapter().save(source)
    to.write_text("precious")
    with pytest.raises(InputError, match=r"b.bin exists already.*--overwrite true"):
        convert(source, to, str(backbone))
    assert to.read_text() == "precious"
    convert(source, to, str(backbone), overwrite=True)
    assert torch.load(to, weights_only=True)
    with pytest.raises(InputError, match="is the source itself"):
        convert(source, source, str(backbone), overwrite=True)
