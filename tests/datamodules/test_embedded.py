"""The embedded default: the pocket backbone that comes with the package, its adapter, and what other backbones get instead."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from random_folders import tiny_backbone, tiny_flags, tiny_parts
from safetensors import safe_open

from apa_lightning import AudioEditor, AudioLDM2Backbone, AudioMAE, AudioPromptModule, InputError
from apa_lightning.adapters.base import AdapterError
from apa_lightning.cli.main import main
from apa_lightning.commands.adapter import convert
from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.utils import pretrained as sources
from apa_lightning.utils.pretrained import ADAPTER_FILE, packaged

ROOT = Path(__file__).parents[2]
RATE = 16_000
TONE = 0.3 * torch.sin(2 * torch.pi * 220 * torch.arange(2 * RATE) / RATE)


@pytest.fixture(scope="module")
def editor() -> AudioEditor:
    return AudioEditor.from_pretrained()


@pytest.fixture
def predict(tmp_path, monkeypatch):
    """`predict` with a folder of one tone and a prompt; gives the lines of the results."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["apa_lightning"])
    (tmp_path / "songs").mkdir()
    soundfile.write(tmp_path / "songs" / "tone.wav", TONE.numpy(), RATE)

    def run(*arguments: str) -> list[dict]:
        data = ["--data.folder", str(tmp_path / "songs"), "--data.prompt", "a recording of a violin solo"]
        quick = ["--data.output", str(tmp_path / "edits"), "--data.num_inference_steps", "2"]
        main(["predict", "--config", "configs/predict.yaml", *arguments, *data, *quick, "--trainer.accelerator", "cpu"])
        return [json.loads(line) for line in (tmp_path / "edits" / "results.jsonl").read_text().splitlines()]

    return run


# --- the default ------------------------------------------------------------------------------------------------------


def test_the_editor_without_arguments_is_the_pocket_with_its_adapter(editor):
    assert (editor.backbone.name, editor.backbone.vocoder_choice) == ("embedded", "refined")
    assert editor.backbone.window_seconds == editor.audio_encoder.window_seconds == pytest.approx(5.12)
    (adapter,) = editor.adapters
    assert not adapter.is_untrained
    assert adapter.digest() == editor.backbone.new_adapter(packaged() / ADAPTER_FILE).digest()
    edits = [
        editor.edit((TONE, RATE), prompt="a recording of a violin solo", ap_scale=scale, num_inference_steps=2)
        for scale in (0.0, 0.5)
    ]
    for result in edits:
        assert (result.sample_rate, result.waveform.shape) == (RATE, TONE.shape)
        assert result.adapter == adapter.digest()
        assert result.waveform.isfinite().all()
        assert result.waveform.std() > 0.02
    assert not torch.allclose(edits[0].waveform, edits[1].waveform, atol=1e-3)  # the recording is heard


def test_the_shipped_adapter_says_what_it_was_trained_on(editor):
    with safe_open(packaged() / ADAPTER_FILE, "pt") as file:
        metadata = file.metadata()
    assert (metadata["backbone"], metadata["audio_encoder"]) == ("embedded", "embedded")
    assert editor.adapters[0].metadata["loa_layers"] == editor.audio_encoder.loa_layers


def test_audio_encoder_and_clap_are_the_pockets(editor):
    waveform = TONE[None]
    assert torch.equal(AudioMAE.from_pretrained("embedded")(waveform), editor.audio_encoder(waveform))
    theirs, ours = ClapEmbedder.from_pretrained("embedded"), ClapEmbedder.of(editor.backbone)
    assert torch.equal(theirs.text(["a violin"]), ours.text(["a violin"]))
    assert torch.equal(AudioMAE.from_pretrained(packaged() / "audio_encoder")(waveform), editor.audio_encoder(waveform))


def test_predict_needs_a_folder_and_a_prompt_alone(predict, editor, caplog):
    (record,) = predict()
    assert (record["status"], record["backbone"]) == ("done", "embedded")
    assert record["adapter_digest"] == editor.adapters[0].digest()
    assert "untrained adapter" not in caplog.text
    predict("--model.adapter", "null")
    assert "untrained adapter" in caplog.text


def test_training_starts_from_a_copy_unless_told_otherwise(editor):
    untrained, embedded = AudioPromptModule(), AudioPromptModule(adapter="embedded")
    for module in (untrained, embedded):
        module.configure_model()
    assert untrained.adapter.is_untrained
    assert embedded.adapter.digest() == editor.adapters[0].digest()


def test_the_adapter_command_describes_the_shipped_one(editor, capsys):
    convert(Path("embedded"))
    assert f"digest {editor.adapters[0].digest()}, fits embedded" in capsys.readouterr().out


# --- other backbones --------------------------------------------------------------------------------------------------


def test_another_backbone_gets_neither_the_pockets_adapter_nor_its_vocoder_mode():
    editor = AudioEditor.from_pretrained(**tiny_parts(32))
    assert editor.adapters[0].is_untrained
    assert editor.backbone.vocoder_choice == "backbone"


def test_the_pockets_adapter_with_another_backbone_is_one_message(predict, capsys):
    folder = tiny_backbone(32)
    with pytest.raises(AdapterError, match=f"'embedded' was trained on the embedded backbone.*those of {folder}"):
        AudioEditor.from_pretrained(adapter="embedded", **tiny_parts(32))
    with pytest.raises(SystemExit) as end:
        predict(*tiny_flags(32))
    assert end.value.code == 2
    (message,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "Give the file of an adapter that was trained on it, or null" in message


def test_a_folder_of_ones_own_is_as_good_as_the_package(tmp_path, editor):
    """What a vocoder is used as goes with its folder, and an adapter goes with the weights, wherever they are."""
    folder = shutil.copytree(packaged(), tmp_path / "model", ignore=shutil.ignore_patterns(ADAPTER_FILE))
    backbone = AudioLDM2Backbone.from_pretrained(folder)
    assert backbone.vocoder_choice == "refined"
    assert AudioLDM2Backbone.from_pretrained(folder, vocoder="backbone").vocoder_choice == "backbone"
    assert backbone.new_adapter("embedded").digest() == editor.adapters[0].digest()
    config = folder / "vocoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocoder_choice": "wavenet"}))
    with pytest.raises(InputError, match="vocoder: 'wavenet' is unknown"):
        AudioLDM2Backbone.from_pretrained(folder)


# --- a package that is not whole --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "field"),
    [
        (AudioLDM2Backbone.from_pretrained, "backbone"),
        (AudioMAE.from_pretrained, "audio_encoder"),
        (ClapEmbedder.from_pretrained, "clap"),
    ],
)
def test_a_package_without_its_unet_is_one_message(tmp_path, monkeypatch, load, field):
    shutil.copytree(packaged(), tmp_path / "weights", ignore=shutil.ignore_patterns("unet"))
    monkeypatch.setattr(sources, "packaged", lambda: tmp_path / "weights")
    with pytest.raises(InputError, match=f"^{field}: 'embedded' is the pocket .* lacks unet/config.json") as error:
        load("embedded")
    assert "\n" not in str(error.value)


def test_a_package_without_its_adapter_is_one_message(editor, tmp_path, monkeypatch):
    (tmp_path / "unet").mkdir()
    for whole in ("model_index.json", "unet/config.json"):
        (tmp_path / whole).touch()
    monkeypatch.setattr("apa_lightning.utils.pretrained.packaged", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match=f"adapter: {tmp_path}/{ADAPTER_FILE} does not exist"):
        editor.backbone.new_adapter("embedded")
