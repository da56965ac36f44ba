"""The command `publish`: the folder, its card as the hub reads it, the upload, and adapters by hub id."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from evaluation_rows import rows_of
from hub_stand_in import HubStandIn
from huggingface_hub import ModelCard
from random_folders import tiny_backbone, tiny_flags
from recordings import tone

from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.cli.main import main
from apa_lightning.commands.publish import publish
from apa_lightning.errors import InputError
from apa_lightning.evaluation.rows import write_rows
from apa_lightning.utils.pretrained import packaged

NASTY = "a violin | <script>alert(1)</script> [x](http://y)"
SETTINGS = {"license": "cc-by-4.0", "datasets": ["agkphysics/AudioSet"]}


@pytest.fixture(scope="module")
def tiny() -> AudioLDM2Backbone:
    return AudioLDM2Backbone.from_pretrained(tiny_backbone())


@pytest.fixture(scope="module")
def changed(tiny) -> AudioPromptAdapter:
    adapter = tiny.new_adapter()
    with torch.no_grad():
        next(adapter.parameters()).add_(1)
    return adapter


@pytest.fixture
def adapter(tmp_path, changed) -> AudioPromptAdapter:
    """A changed adapter in the folder of a run, with its history."""
    adapter = changed
    adapter.metadata = {"backbone": "someone/tiny", "audio_encoder": "/home/me/secret/audiomae", "loa_layers": "last"}
    (tmp_path / "run").mkdir()
    adapter.save(tmp_path / "run" / "adapter.safetensors", step=20)
    start = {
        "event": "start", "time": "2026-01-01T10:00:00+00:00", "step": 0, "command": ["/home/me/secret/fit"],
        "host": "my-machine", "precision": "bf16-mixed", "git": {"commit": "abc123", "changed": ["secret.py"]},
        "data": {"train": {"shards": 2, "clips": 30, "digest": "d1"}}, "versions": {"torch": "2.14.1", "timm": None},
    }  # fmt: skip
    end = {"event": "end", "time": "2026-01-01T11:30:00+00:00", "step": 20, "how": "finished"}
    lines = [json.dumps(start), json.dumps(end), json.dumps(start)[:40]]  # the last start was killed while writing
    (tmp_path / "run" / "history.jsonl").write_text("\n".join(lines))
    return adapter


@pytest.fixture
def evaluation(tmp_path, adapter) -> Path:
    """An evaluation of that adapter in two tasks, with sounds of the first edit of timbre."""
    folder = tmp_path / "evaluation"
    rows = [
        one
        for task in ("timbre", "genre")
        for system, shift in (("adapter", 0.1), ("text_only", 0.2))
        for one in rows_of(system, lambda i, s=shift: {"clap": 0.3 + s + 0.01 * i, "chroma": 0.7, "chroma_floor": 0.4}, 6, task)
    ]  # fmt: skip
    for one in rows:
        one.about["prompt"] = NASTY
    write_rows(folder, rows)
    about = {
        "adapter": adapter.digest(), "set": "my solos", "sources": 3, "seed": 0, "backbone": "/home/me/secret/tiny",
        "clap": "CLAP of /home/me/secret/tiny", "metrics": {name: vars(column) for name, column in rows[0].columns.items()},
    }  # fmt: skip
    (folder / "evaluation.json").write_text(json.dumps(about))
    for path, level in ((rows[0].audio, 0.5), (rows[0].output, 1.5)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / path, np.full(800, level, np.float32), 8000, subtype="FLOAT")
    (folder / "plots").mkdir()
    (folder / "plots" / "trade_off.png").write_bytes(b"a picture")
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = HubStandIn("someone/violin-1.5")
    hub.connect(monkeypatch, tmp_path / "cache")
    yield hub
    hub.disconnect()


def same(first: AudioPromptAdapter, second: AudioPromptAdapter) -> bool:
    own, other = first.state_dict(), second.state_dict()
    return own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


def test_the_folder_is_read_back_bit_for_bit_and_its_card_by_the_hubs_own_parser(tmp_path, tiny, adapter, evaluation):
    out = tmp_path / "violin"
    publish(str(tmp_path / "run"), out, evaluation / "evaluation.json", **SETTINGS)
    assert same(tiny.new_adapter(out), adapter)
    card = ModelCard.load(out / "README.md")
    known = card.data.to_dict()
    assert {name: known[name] for name in ("license", "library_name", "base_model", "base_model_relation", "datasets")} == {
        "license": "cc-by-4.0", "library_name": "apa_lightning", "base_model": "someone/tiny",
        "base_model_relation": "adapter", "datasets": ["agkphysics/AudioSet"],
    }  # fmt: skip
    assert known["pipeline_tag"] == "audio-to-audio" and card.data.model_name == "violin"
    results = {(one.dataset_config, one.metric_type): one for one in card.data.eval_results}
    assert [*results] == [(task, metric) for task in ("timbre", "genre") for metric in ("clap", "chroma")]
    clap, chroma = results["timbre", "clap"], results["genre", "chroma"]
    assert clap.metric_value == 0.425 and clap.metric_args["low_95"] < 0.425 < clap.metric_args["high_95"]
    assert chroma.metric_args == {"low_95": 0.7, "high_95": 0.7, "floor": 0.4}
    assert chroma.task_name == "music editing: genre" and chroma.dataset_type == "my-solos"
    for fact in (
        "1:30:00",
        "bf16-mixed",
        "shards 2, clips 30, digest d1",
        "abc123 with local changes",
        "| timbre | 0.5 |",
    ):
        assert fact in card.text
    for private in ("secret", "/home", "my-machine", "<script>", "[x](http"):
        assert private not in card.text and private not in (out / "config.json").read_text()
    sound, rate = soundfile.read(out / "examples" / "timbre-1-source.flac")
    assert rate == 8000 and len(sound) == 800 and np.allclose(sound, 0.5, atol=1e-4)
    assert sorted(path.name for path in (out / "examples").iterdir()) == [
        "timbre-1-adapter.flac",
        "timbre-1-source.flac",
    ]
    assert (out / "plots" / "trade_off.png").read_bytes() == b"a picture" and "(plots/trade_off.png)" in card.text
    settings = json.loads((out / "config.json").read_text())["edit_settings"]
    assert settings["genre"]["ap_scale"] == 0.5 and "seed" not in settings["genre"]


def test_predict_makes_the_same_edits_with_the_published_folder(tmp_path, monkeypatch, adapter):
    monkeypatch.setattr("sys.argv", ["apa_lightning"])
    publish(str(tmp_path / "run"), tmp_path / "out", **SETTINGS)
    (tmp_path / "songs").mkdir()
    tone(tmp_path / "songs" / "song.wav")
    edits = {}
    for name in ("run/adapter.safetensors", "out", None):
        main(
            [
                "predict", "--config=pkg:predict.yaml", *tiny_flags(), f"--data.folder={tmp_path / 'songs'}",
                f"--model.adapter={tmp_path / name if name else 'null'}", f"--data.output={tmp_path / 'edits' / str(name)}",
                "--data.prompt=a violin", "--data.num_inference_steps=1",
            ]
        )  # fmt: skip
        edits[name] = (tmp_path / "edits" / str(name) / "song.wav").read_bytes()
    assert edits["out"] == edits["run/adapter.safetensors"] != edits[None]


def test_an_adapter_is_uploaded_and_read_by_its_hub_id(tmp_path, monkeypatch, tiny, adapter, evaluation, hub):
    settings = {**SETTINGS, "out": tmp_path / "out", "push": hub.name}
    publish(str(tmp_path / "run"), evaluation=evaluation, **settings)
    assert "examples/timbre-1-source.flac" in hub.files
    loaded = tiny.new_adapter(hub.name)
    assert same(loaded, adapter) and loaded.name == "violin-1.5"
    assert f'adapter="{hub.name}"' in hub.files["README.md"].decode()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # from the cache
    assert same(tiny.new_adapter(hub.name), adapter)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    publish(str(tmp_path / "run"), overwrite=True, **settings)
    assert sorted(hub.files) == ["README.md", "adapter.safetensors", "config.json"]
    assert "It has not been evaluated" in hub.files["README.md"].decode()


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        ({"/create": (401, {"error": "Invalid username or password."}), hub_path: (404, {})}, "Invalid username")
        for hub_path in ("/models/someone/violin-1.5",)
    ]
    + [
        ({"/validate-yaml": (400, {"errors": [{"message": '"license" must be one of'}]})}, '"license" must be one of'),
        ({"/commit/main": (403, {"error": "You are not allowed to write"})}, "not allowed to write"),
        ({"/create": ConnectionError("no route")}, "no route"),
    ],
)
def test_a_refusal_of_the_hub_is_one_line_and_the_folder_stays(tmp_path, adapter, hub, refuse, message):
    hub.refuse = refuse
    with pytest.raises(InputError, match=message) as error:
        publish(str(tmp_path / "run"), tmp_path / "out", push=hub.name, **SETTINGS)
    assert "\n" not in str(error.value) and f"hf upload {hub.name} {tmp_path / 'out'}" in str(error.value)
    assert (tmp_path / "out" / "README.md").is_file()


def test_without_a_network_the_upload_is_refused_in_one_line(tmp_path, monkeypatch, adapter, hub):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="offline mode is enabled"):
        publish(str(tmp_path / "run"), tmp_path / "out", push=hub.name, **SETTINGS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"license": None}, "license: is missing.*That of someone/tiny"),
        ({"license": "Apache License"}, "license: 'Apache License'"),
        ({"datasets": ["my data"]}, "datasets: 'my data'"),
        ({"base_model": "/home/me/tiny"}, "base_model: '/home/me/tiny'"),
        ({"push": "violin"}, "push: 'violin' is not a hub id"),
        ({"push": "someone/violin"}, "push: this machine has no token"),
        ({"examples": -1}, "examples: -1"),
        ({"run": Path("nowhere")}, "run: nowhere does not exist"),
        ({"run": Path("empty.jsonl")}, "holds no start of a run"),
        ({"run": Path("shorter.jsonl")}, "ends at step 3, the adapter is of step 20"),
        ({"evaluation": Path()}, "holds no evaluation.json"),
        ({"evaluation": Path("other")}, "evaluated the adapter 0123"),
        ({"out": Path("full")}, "holds photo.png, which this command does not write"),
        ({"out": Path("done")}, "exists already.*--overwrite true"),
        ({"out": Path("empty.jsonl")}, "is a file"),
        ({"adapter": "published.bin"}, "adapter --source published.bin --to adapter.safetensors"),
        ({"adapter": "local.safetensors"}, "base_model: the adapter was trained on /home/me/tiny"),
    ],
)
def test_what_cannot_be_published_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, adapter, settings, message
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    for name, content in {
        "empty.jsonl": "", "full/photo.png": "", "done/README.md": "", "other/evaluation.json": '{"adapter": "0123"}',
        "shorter.jsonl": '{"event": "start", "time": "2026-01-01", "step": 0}\n{"event": "end", "time": "2026-01-01", "step": 3}',
    }.items():  # fmt: skip
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(content)
    adapter.export_published("published.bin")
    adapter.metadata["backbone"] = "/home/me/tiny"
    adapter.save("local.safetensors")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises((InputError, FileNotFoundError), match=message):
        publish(**{"adapter": "run", "out": Path("out"), **SETTINGS, **settings})
    assert sorted(tmp_path.rglob("*")) == before


def test_the_pockets_own_card_is_one_of_the_hub():
    data = ModelCard.load(packaged() / "README.md").data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "diffusers", "text-to-audio")
