"""The assembled pocket folder: both loaders read it, an editor edits with it, and it says what it lacks and weighs."""

import shutil

import pytest
import torch
from diffusers import AudioLDM2Pipeline
from pocket_tools import pocket_folder, with_untrained_unet

from apa_lightning import AudioEditor, AudioLDM2Backbone, InputError
from apa_lightning.pocket.assembly import PARTS, complete, missing, require, sizes
from apa_lightning.utils.pretrained import packaged


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    target = tmp_path_factory.mktemp("pocket") / "whole"
    with_untrained_unet(pocket_folder(), target, seed=3)
    return target


def test_both_loaders_read_the_folder_and_agree(assembled):
    assert missing(pocket_folder()) == ["unet"] and not missing(assembled)
    pipeline = AudioLDM2Pipeline.from_pretrained(assembled)
    backbone = AudioLDM2Backbone.from_pretrained(assembled)
    for part in ("vae", "vocoder", "text_encoder", "text_encoder_2", "projection_model", "language_model", "unet"):
        assert type(getattr(pipeline, part)) is type(getattr(backbone, part))
    assert backbone.window_seconds == pytest.approx(5.12) and backbone.latent_shape() == (8, 128, 16)
    assert pipeline.scheduler.config.prediction_type == "epsilon"
    generated = backbone.encode_text(["a recording of a violin solo"]).generated
    expected = pipeline.encode_prompt(["a recording of a violin solo"], "cpu", 1, do_classifier_free_guidance=False)[2]
    torch.testing.assert_close(generated, expected)


def test_an_editor_edits_with_it(assembled):
    editor = AudioEditor.from_pretrained(assembled, audio_encoder=assembled / "audio_encoder")
    tone = 0.3 * torch.sin(2 * torch.pi * 220 * torch.arange(5 * 16_000) / 16_000)
    result = editor.edit(
        (tone[None], 16_000), prompt="a recording of a violin solo", num_inference_steps=1, progress=False
    )
    assert (
        len(result.waveform.flatten()) == len(tone) and result.waveform.isfinite().all() and result.waveform.std() > 0
    )


@pytest.mark.parametrize("part", [*PARTS])
def test_a_missing_part_is_named_with_its_recipe(part, tmp_path):
    for other in PARTS:
        if other != part and other != "unet":
            (tmp_path / other).symlink_to(pocket_folder() / other)
    with pytest.raises(InputError, match=rf"{tmp_path} lacks .*{part}.*configs/pocket/{PARTS[part].recipe}\.yaml"):
        complete(tmp_path)
    require(tmp_path, [other for other in PARTS if other not in (part, "unet")])
    assert not (tmp_path / "model_index.json").exists()


def test_sizes(tmp_path):
    counted = sizes(pocket_folder())
    assert set(counted) == set(PARTS) - {"unet"} and 10e6 < sum(counted.values()) < 15e6
    (tmp_path / "vae").mkdir()
    shutil.copy(pocket_folder() / "vae" / "config.json", tmp_path / "vae")
    (tmp_path / "README.md").write_text("12 bytes long")
    assert sizes(tmp_path)["."] == 13
    with (tmp_path / "large").open("wb") as file:
        file.truncate(15 * 2**20 + 1)
    with pytest.raises(InputError, match=r"large: 15,728,641 bytes"):
        sizes(tmp_path)
    for i in range(4):
        with (tmp_path / f"large{i or ''}").open("wb") as file:
            file.truncate(11_000_000)
    with pytest.raises(InputError, match=r"44,000,\d+ bytes; the pocket has at most 40,000,000"):
        sizes(tmp_path)


def test_the_package_has_a_place_for_its_weights():
    assert packaged().parts[-3:] == ("apa_lightning", "pocket", "weights")
