"""MusicGen behind the command line: training, resuming, cached codes, edits with every knob, an evaluation, sizes."""

import csv
import json
import math
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from fit_tools import assert_resumed_exactly
from random_folders import tiny_musicgen_backbone

from apa_lightning import AudioEditor, MusicgenBackbone
from apa_lightning.adapters.files import AdapterFile
from apa_lightning.audio import load_audio, save_audio
from apa_lightning.cli.main import main
from apa_lightning.editing.knobs import knobs_of
from apa_lightning.editing.settings import EditSettings

ROOT = Path(__file__).parents[2]
RATE = 32_000
PLAN = {"plan": {"num_clips": 1}}
CALLBACKS = ("callbacks.LastCheckpoint", "callbacks.AdapterEMA", "callbacks.AdapterExport", "callbacks.LearningRate")


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["apa_lightning"])


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """An overlay with a tiny MusicGen whose window is that of its audio encoder."""
    folder = tiny_musicgen_backbone()
    backbone = {"class_path": "apa_lightning.MusicgenBackbone"}
    backbone |= {"init_args": {"source": str(folder), "window_seconds": 1.28}}
    parts = {"backbone": backbone, "audio_encoder": str(folder / "audio_encoder")}
    path = tmp_path_factory.mktemp("model") / "model.yaml"
    path.write_text(yaml.safe_dump({"model": {"init_args": parts}}))
    return f"--config={path}"


def fit(model: str, folder: Path, steps: int, *more: str) -> None:
    """A training of the base configuration with checkpoints, EMA and, in the end, validation edits."""
    edits = [{"class_path": f"callbacks.{name}", "init_args": PLAN} for name in ("AudioSamples", "EditMetrics")]
    overlay = folder.parent / f"{folder.name}.yaml"
    callbacks = [*({"class_path": name} for name in CALLBACKS), *edits]
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks": callbacks}}))
    main(
        [
            "fit", "--config=configs/base.yaml", "--config=tests/small.yaml", f"--config={overlay}", model,
            "--data.validation_samples=1", f"--trainer.max_steps={steps}", "--trainer.val_check_interval=4",
            f"--trainer.default_root_dir={folder}", "--model.gradient_checkpointing=true", *more,
        ]
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory, model) -> Path:
    """The folder of a run of four steps, and one of two steps that was resumed."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr("sys.argv", ["apa_lightning"])
        fit(model, folder / "whole", 4)
        fit(model, folder / "resumed", 2)
        shutil.copy(next((folder / "resumed").glob("**/last.ckpt")), folder / "two.ckpt")
        fit(model, folder / "resumed", 4, f"--ckpt_path={folder / 'two.ckpt'}", "--trainer.limit_val_batches=0")
    return folder


@pytest.fixture(scope="module")
def adapter(trained) -> Path:
    return next((trained / "whole").glob("**/adapter.safetensors"))


def tone(pitch: float, seconds: float) -> torch.Tensor:
    return 0.3 * torch.sin(2 * math.pi * pitch * torch.arange(round(seconds * RATE)) / RATE)


def test_a_run_trains_validates_and_writes_its_adapter(adapter):
    assert AdapterFile.read(adapter).metadata["backbone_kind"] == "musicgen"
    edited, rate = load_audio(next(adapter.parent.glob("samples/step-*/*-edited.wav")))
    assert rate == RATE and edited.shape == (1, round(1.28 * RATE))
    backbone = MusicgenBackbone(str(tiny_musicgen_backbone()), 1.28)
    backbone.load_weights()
    assert not backbone.new_adapter(adapter).is_untrained


def test_a_resumed_run_is_the_whole_one_bit_for_bit(trained):
    assert_resumed_exactly(trained, 4)


def test_codes_are_cached(model, tmp_path):
    shards = [f"--data.{split}_shards=datamodules/embedded/{split}-000001.tar" for split in ("train", "validation")]
    main(
        [
            "fit", "--config=configs/base.yaml", "--config=configs/data/encoded.yaml", "--config=tests/small.yaml", model,
            *shards, "--trainer.callbacks=[]", f"--data.cache={tmp_path / 'cache'}", "--data.windows_per_clip=1",
            "--data.validation_samples=1", "--trainer.max_steps=2", "--trainer.val_check_interval=2",
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )  # fmt: skip
    from safetensors.torch import load_file

    files = [load_file(path) for path in (tmp_path / "cache").rglob("*.safetensors")]
    assert len(files) == 2
    for file in files:
        assert file["codes"].dtype == torch.int16 and file["codes"].shape[1:] == (4, 64) and "mean" not in file
        assert file["grid"].shape[1:] == (8, 8, 48) and file["text.0.encoded"].shape[2] == 32


#: One line of a manifest for each knob that MusicGen has.
KNOBS: dict[str, dict] = {
    "negative_prompt": {"negative_prompt": "a piano"},
    "ap_scale": {"ap_scale": 0.0},
    "time_pooling": {"time_pooling": 8},
    "freq_pooling": {"freq_pooling": 8},
    "guidance_scale": {"guidance_scale": 1.0},
    "text_guidance_scale": {"text_guidance_scale": 6.0},
    "audio_guidance_scale": {"audio_guidance_scale": 9.0},
    "temperature": {"temperature": 0.3},
    "top_k": {"top_k": 3},
    "seed": {"seed": 5},
    "region": {"region": [0.4, 1.0]},
    "crossfade": {"region": [0.4, 1.0], "crossfade": 0.2},
    "extend": {"extend": [0.0, 0.5]},
    "audio_prompts": {"audio_prompts": [{"start": 0.5, "end": 1.5, "ap_scale": 2.0}]},
    "sample_rate": {"sample_rate": 22_050},
    "match_level": {"match_level": False},
    "task": {"task": "genre"},
}


def test_every_knob_works(model, adapter, tmp_path):
    """Each knob changes the edit; the length and the kept parts stay."""
    assert KNOBS.keys() == {n for n, (knob, _) in knobs_of(EditSettings).items() if knob.belongs_to("tokens")}
    song = tone(220, 1.6)
    save_audio(tmp_path / "song.wav", song, RATE)
    lines = {
        "plain": {},
        **KNOBS,
        "layer": {"ap_scale": {"layers.1": 2.0}},
        "list": {"ap_scale": {"layers": [2.0, 0.0]}},
    }
    entries = [{"id": name, "audio": "song.wav", "prompt": "a violin", **knobs} for name, knobs in lines.items()]
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    main(
        [
            "predict", "--config=configs/predict.yaml", model, f"--model.adapter={adapter}",
            f"--data.manifest={tmp_path / 'edits.jsonl'}", f"--data.output={tmp_path / 'edits'}", "--data.batch_size=4",
        ]
    )  # fmt: skip
    made = {name: load_audio(tmp_path / "edits" / f"{name}.wav") for name in lines}
    plain, rate = made.pop("plain")
    assert rate == RATE and plain.shape == (1, len(song))
    for name, (edit, rate) in made.items():
        seconds = 2.1 if name == "extend" else 1.6
        assert edit.shape[1] == round(seconds * rate) and rate == (22_050 if name == "sample_rate" else RATE), name
        assert edit.shape != plain.shape or not torch.equal(edit, plain), name
    assert (made["region"][0][0, : round(0.4 * RATE)] - song[: round(0.4 * RATE)]).abs().max() < 1e-4
    results = [json.loads(line) for line in (tmp_path / "edits" / "results.jsonl").read_text().splitlines()]
    plain_result = next(one for one in results if one["id"] == "plain")
    assert (plain_result["guidance_scale"], plain_result["top_k"], plain_result["temperature"]) == (3.0, 250, 1.0)
    assert plain_result["num_inference_steps"] is None and plain_result["scheduler"] is None


def said_by(capsys, arguments: list[str]) -> str:
    """The message of a command that is refused."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    return " ".join(capsys.readouterr().err.split())


#: What denoising alone has, each in a line of a manifest.
DENOISING: dict[str, object] = {
    "num_inference_steps": 50,
    "scheduler": "DDIMScheduler",
    "strength": 0.5,
    "guidance_interval": [0.0, 0.5],
    "ap_scale_end": 0.1,
    "window_overlap": 0.5,
}


def test_knobs_of_denoising_and_other_kinds_parts_are_refused(model, tmp_path, capsys):
    assert DENOISING.keys() == {n for n, (knob, _) in knobs_of(EditSettings).items() if not knob.belongs_to("tokens")}
    save_audio(tmp_path / "songs" / "a.wav", tone(220, 2), RATE)
    lines = [{"id": name, "audio": "songs/a.wav", "prompt": "x", name: value} for name, value in DENOISING.items()]
    (tmp_path / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    predict = ["predict", "--config=configs/predict.yaml", f"--data.output={tmp_path / 'edits'}"]
    folder = [f"--data.folder={tmp_path / 'songs'}", "--data.prompt=a violin"]
    said = said_by(capsys, [*predict, model, "--model.adapter=null", f"--data.manifest={tmp_path / 'edits.jsonl'}"])
    assert all(f" {name}: " in said for name in DENOISING)
    assert said.count("has no such knob: it draws codes one after the other") == len(DENOISING)
    said = said_by(capsys, [*predict, model, *folder, "--model.adapter=null", "--data.num_inference_steps=50"])
    assert "num_inference_steps: 50; " in said and "has no such knob: it draws codes" in said
    said = said_by(capsys, [*predict, model, *folder, "--model.adapter=embedded"])
    assert "was trained on the embedded backbone, whose weights differ from those of" in said
    said = said_by(capsys, [*predict, *folder, "--data.top_k=5"])
    assert "top_k: 5; embedded has no such knob: it denoises" in said


@pytest.fixture
def evaluation(model, adapter, tmp_path) -> list[str]:
    """The command that evaluates two recordings, all but its systems."""
    for name, pitch in (("piano_0", 220), ("violin_0", 330)):
        save_audio(tmp_path / "songs" / f"{name}.wav", tone(pitch, 1.2), RATE)
    metrics = [{"class_path": f"apa_lightning.metrics.{name}"} for name in ("ClapScore", "ChromaSimilarity")]
    return [
        "evaluate", "--config=configs/evaluate.yaml", model, f"--model.adapter={adapter}",
        f"--data.sources={tmp_path / 'songs'}", f"--data.output={tmp_path / 'evaluation'}",
        f"--data.metrics={json.dumps(metrics)}",
        '--data.tasks=[{"name": "timbre", "prompt": "a {target} solo", "negative_prompt": "a {source}", '
        '"targets": ["piano", "violin"]}]',
    ]  # fmt: skip


def rows_in(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_evaluate_runs_what_the_backbone_can_run(evaluation, tmp_path, capsys):
    """Without names the systems that denoise are left out and named; `sweep` reads the results."""
    main([*evaluation, "--data.grid={ap_scale: [0.2]}"])
    assert "evaluate: without sdedit, which the backbone cannot run: it draws codes" in capsys.readouterr().out
    rows = rows_in(tmp_path / "evaluation")
    assert {row["system"] for row in rows} == {
        "adapter", "no_negative", "text_only", "no_op", "codec", "adapter ap_scale=0.2"
    }  # fmt: skip
    assert {(row["top_k"], row["num_inference_steps"]) for row in rows if row["system"] == "adapter"} == {("250", "")}
    main(["sweep", f"--results={tmp_path / 'evaluation'}"])
    assert list((tmp_path / "evaluation").rglob("edit_defaults.yaml"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "--data.systems=[adapter, sdedit, ddpm_inversion, direct_audio_edit]",
            "--data.systems: sdedit, ddpm_inversion, direct_audio_edit cannot be run",
        ),
        ("--data.grid={strength: [0.5]}", "--data.grid: sdedit strength=0.5 cannot be run"),
    ],
)
def test_systems_that_denoise_are_refused_by_name(given, message, evaluation, tmp_path, capsys):
    said = said_by(capsys, [*evaluation, given])
    assert f"{message} with this backbone: it draws codes one after the other" in said
    assert not (tmp_path / "evaluation" / "results.csv").exists()


def test_stored_defaults_and_print_config(tmp_path, capsys):
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_musicgen_backbone(), folder)
    with pytest.raises(SystemExit):
        main(["predict", "--config=configs/predict.yaml", f"--model.backbone={folder}", "--print_config"])
    shown = yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]
    assert (shown["guidance_scale"], shown["top_k"], shown["num_inference_steps"]) == (3.0, 250, None)
    (folder / "edit_defaults.yaml").write_text("guidance_scale: 2.0\ntop_k: 40\n")
    backbone = MusicgenBackbone(str(folder), 1.28)
    editor = AudioEditor.from_pretrained(backbone, None, folder / "audio_encoder")
    filled = editor.filled(EditSettings())
    assert (filled.guidance_scale, filled.top_k, filled.temperature, filled.scheduler) == (2.0, 40, 1.0, None)
