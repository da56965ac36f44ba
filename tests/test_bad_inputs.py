"""BAD_INPUTS through the command line: one message that names the culprit and the way out, exit code 2, no traceback."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch
from test_audio import BROKEN, TONE

from apa_lightning.cli import main
from apa_lightning.embedded import embedded_backbone

ROOT = Path(__file__).parents[1]
FIT = ["fit", "--config", "configs/base.yaml", "--config", "tests/small.yaml"]
PREDICT = [
    "predict",
    "--config",
    "configs/predict.yaml",
    "--trainer.accelerator",
    "cpu",
    "--data.num_inference_steps",
    "1",
]


@pytest.fixture()
def refused(monkeypatch, capfd, tmp_path):
    """Run the command line and return its message, after checking how it ended."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["apa_lightning"])

    def run(*arguments: object) -> str:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in (*arguments, "--trainer.default_root_dir", tmp_path / "runs")])
        error = capfd.readouterr().err
        assert end.value.code == 2, error
        assert "Traceback" not in error
        message = error[error.index("error: ") :]
        assert len(message) < 2000
        return message

    return run


def write_tone(path: Path, seconds: float = 1.0) -> Path:
    soundfile.write(path, np.resize(TONE, round(16_000 * seconds)), 16_000)
    return path


def predict_folder(folder: Path, *more: object) -> list[object]:
    return [
        *PREDICT,
        "--data.folder",
        folder,
        "--data.prompt",
        "a violin",
        "--data.output",
        folder.parent / "edits",
        *more,
    ]


# --- 1 to 9: audio -----------------------------------------------------------------------------------------------------

AUDIO = {kind: (make, message) for kind, (make, message) in BROKEN.items() if kind not in ("nan", "inf", "cut_flac")}
AUDIO["too_short"] = (lambda t: write_tone(t / "s.wav", 0.05).read_bytes(), "at least 0.25 s")


@pytest.mark.parametrize("kind", AUDIO)
def test_audio_that_is_known_to_be_broken_before_the_first_edit(refused, tmp_path, kind):
    folder = tmp_path / "in"
    folder.mkdir()
    write_tone(folder / "good.wav")
    (folder / "culprit.wav").write_bytes(AUDIO[kind][0](tmp_path))
    assert "culprit.wav" in refused(*predict_folder(folder))
    assert not list((tmp_path / "edits").glob("*.wav"))


@pytest.mark.parametrize("kind", ["nan", "inf", "cut_flac", "silent"])
def test_audio_that_shows_its_fault_when_read(refused, tmp_path, kind):
    """The good neighbour is edited all the same, and the failure is named at the end."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_tone(folder / "good.wav")
    content = BROKEN[kind][0](tmp_path) if kind != "silent" else None
    if content is None:
        soundfile.write(folder / "culprit.wav", np.zeros(16_000), 16_000)
    else:
        (folder / ("culprit.flac" if kind == "cut_flac" else "culprit.wav")).write_bytes(content)
    assert "culprit" in refused(*predict_folder(folder))


def test_a_recording_that_is_too_long(refused, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    with soundfile.SoundFile(folder / "culprit.wav", "w", 4_000, 1, "PCM_U8") as file:
        for _ in range(31):
            file.write(np.zeros(60 * 4_000))
    message = refused(*predict_folder(folder))
    assert "culprit.wav" in message
    assert "1800" in message


# --- 11 to 16: shards --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "culprit.tar"), (b"", "culprit.tar"), (os.urandom(5000), "culprit.tar")],
    ids=["missing", "empty", "random"],
)
def test_shards(refused, tmp_path, content, words):
    path = tmp_path / "culprit.tar"
    if content is not None:
        path.write_bytes(content)
    assert words in refused(*FIT, "--data.train_shards", path)


def test_pipe_urls_do_not_run(refused, tmp_path):
    canary = tmp_path / "canary"
    message = refused(*FIT, "--data.train_shards", f"pipe:touch {canary}; cat x.tar")
    assert "allow_pipe" in message
    assert not canary.exists()


def test_validation_on_training_shards(refused):
    shards = ROOT / "datamodules" / "embedded" / "train-000000.tar"
    assert "validation_shards" in refused(*FIT, "--data.train_shards", shards, "--data.validation_shards", shards)


# --- 18 to 20: edits ---------------------------------------------------------------------------------------------------


def test_every_bad_manifest_line_is_reported_at_once(refused, tmp_path):
    write_tone(tmp_path / "a.wav")
    lines = [
        {"audio": "a.wav", "prompt": "x"},
        {"audio": "missing.wav", "prompt": "x"},
        {"audio": "a.wav", "prompt": "x", "time_pooling": 3},
        {"audio": "a.wav", "prompt": None},
        {"prompt": "x"},
        {"audio": "a.wav", "prompt": "x", "colour": 1},
    ]
    text = "\n".join([*(json.dumps(line) for line in lines), "{broken"])
    (tmp_path / "edits.jsonl").write_text(text)
    message = refused(*PREDICT, "--data.manifest", tmp_path / "edits.jsonl", "--data.output", tmp_path / "out")
    for words in ("missing.wav", "time_pooling", "prompt", "colour", ":7"):
        assert words in message
    assert not list((tmp_path / "out").glob("*.wav"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data.manifest", "nowhere.csv"], "nowhere.csv"),
        (["--data.folder", "nowhere", "--data.prompt", "x"], "nowhere"),
        ([], "Nothing to edit"),
        (["--data.folder", "tests"], "--data.prompt"),
        (["--data.time_pooling", "3"], "time_pooling: 3"),
        (["--data.time_pooling", "0"], "choose one of 1, 2, 4, 8"),
        (["--data.ap_scale", ".nan"], "ap_scale"),
        (["--data.guidance_scale", "-1"], "guidance_scale"),
        (["--data.num_inference_steps", "0"], "num_inference_steps: 0"),
        (["--data.region", "[4, 2]"], "region"),
        (["--data.scheduler", "Magic"], "Magic"),
        (["--data.batch_size", "0"], "batch_size"),
    ],
)
def test_edit_settings(refused, tmp_path, arguments, words):
    if "--data.scheduler" in arguments:
        (tmp_path / "in").mkdir()
        write_tone(tmp_path / "in" / "a.wav")
        arguments = [
            *arguments,
            "--data.folder",
            tmp_path / "in",
            "--data.prompt",
            "x",
            "--data.output",
            tmp_path / "out",
        ]
    assert words in refused(*PREDICT, *arguments)


def test_a_region_outside_the_recording(refused, tmp_path):
    (tmp_path / "in").mkdir()
    write_tone(tmp_path / "in" / "a.wav")
    assert "region" in refused(*predict_folder(tmp_path / "in", "--data.region", "[0.5, 7]"))


# --- 21: configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: {init_args: {colour: 1}}", "colour"),
        ("trainer: {max_step: 1}", "max_step"),
        ("trainer: {max_steps: many}", "max_steps"),
        ("model: {init_args: {condition_dropout: {text: 1.5}}}", "condition_dropout.text: 1.5"),
        ("data: {init_args: {batch_size: 0}}", "batch_size"),
        ("model: {init_args: {optimizer: {class_path: torch.optim.AdamW, init_args: {lr: -1}}}}", "learning rate"),
        ("model: {class_path: os.system}", "model"),
        ("trainer: {callbacks: [{class_path: os.system}]}", "callbacks"),
        ("a: [", "overlay.yaml"),
        ("!!python/object/apply:os.system ['touch canary']", "overlay.yaml"),
        ("model: {init_args: {pooling_rates: {rates: [3]}}}", "pooling_rates"),
    ],
)
def test_configuration(refused, tmp_path, text, words):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(text)
    assert words.lower() in refused(*FIT, "--config", overlay).lower()
    assert not (ROOT / "canary").exists()


def test_missing_and_empty_configuration(refused, tmp_path):
    assert "nowhere.yaml" in refused("fit", "--config", "nowhere.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert "empty.yaml is empty" in refused("fit", "--config", tmp_path / "empty.yaml")


# --- 22: checkpoints and adapters --------------------------------------------------------------------------------------


class Payload:
    def __reduce__(self):
        return (os.system, ("touch canary",))


def adapter_file(path: Path, change) -> Path:
    from apa_lightning.backbone import AudioLDM2Backbone

    AudioLDM2Backbone.from_pretrained().new_adapter().save(path)
    weights = safetensors.torch.load_file(path)
    change(weights)
    safetensors.torch.save_file(weights, path)
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: w.pop(next(iter(w))), "lacks 1"),
        (lambda w: w.update(extra=torch.ones(1)), "extra"),
        (lambda w: w.update({next(iter(w)): torch.ones(2, 2)}), "shape (2, 2)"),
        (lambda w: next(iter(w.values())).fill_(float("nan")), "NaN"),
    ],
)
def test_adapters(refused, tmp_path, change, words):
    path = adapter_file(tmp_path / "culprit.safetensors", change)
    (tmp_path / "in").mkdir()
    write_tone(tmp_path / "in" / "a.wav")
    for command in (FIT, predict_folder(tmp_path / "in")):
        message = refused(*command, "--model.adapter", path)
        assert words in message
        assert "culprit.safetensors" in message


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00" * 100, pickle.dumps({"w": Payload()}), b"<html></html>"],
    ids=["empty", "zeros", "pickle", "html"],
)
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_adapter_files_that_are_none(refused, tmp_path, content, suffix):
    path = tmp_path / f"culprit.{suffix}"
    path.write_bytes(content)
    assert path.name in refused(*FIT, "--model.adapter", path)
    assert not (ROOT / "canary").exists()


@pytest.mark.parametrize(
    "content",
    [None, b"", b"junk" * 100, pickle.dumps({"state_dict": Payload()})],
    ids=["missing", "empty", "junk", "pickle"],
)
def test_checkpoints(refused, tmp_path, content):
    path = tmp_path / "culprit.ckpt"
    if content is not None:
        path.write_bytes(content)
    assert "culprit.ckpt" in refused(*FIT, "--ckpt_path", path)
    assert not (ROOT / "canary").exists()


def test_a_checkpoint_with_a_payload_in_torch_format(refused, tmp_path):
    torch.save({"state_dict": {}, "loops": {}, "evil": Payload()}, tmp_path / "culprit.ckpt")
    assert "not executed" in refused(*FIT, "--ckpt_path", tmp_path / "culprit.ckpt")
    assert not (ROOT / "canary").exists()


def test_no_last_checkpoint(refused):
    assert "there is no last.ckpt" in refused(*FIT, "--ckpt_path", "last")


# --- 23 and 24: folders and sources ------------------------------------------------------------------------------------


def test_output_that_is_a_file(refused, tmp_path):
    (tmp_path / "in").mkdir()
    write_tone(tmp_path / "in" / "a.wav")
    (tmp_path / "edits").write_text("precious")
    assert "edits" in refused(*predict_folder(tmp_path / "in"))
    assert (tmp_path / "edits").read_text() == "precious"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_disk_full(tmp_path):
    from apa_lightning.cli import _fail  # what main prints for it

    with pytest.raises(OSError, match="No space left") as error, open("/dev/full", "w") as file:
        file.write("x")
        file.flush()
    assert error.value.errno == 28
    assert _fail(str(error.value)) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model.backbone", "nowhere/at/all"], "nowhere/at/all"),
        (["--model.backbone", "someone/audioldm2"], "hf download someone/audioldm2"),
        (["--model.audio_encoder", "someone/audiomae"], "hf download someone/audiomae"),
        (["--model.audio_encoder", "README.md"], "README.md"),
    ],
)
def test_sources(refused, arguments, words):
    assert words in refused(*FIT, *arguments)


def test_a_backbone_and_an_encoder_that_do_not_fit(refused, tmp_path):
    from dataclasses import replace

    from apa_lightning.random_backbone import TINY, save_random_backbone

    wider = replace(TINY, audio_encoder={"embed_dim": 96, "depth": 1, "num_heads": 4})
    save_random_backbone(tmp_path / "wider", wider)
    assert "96 channels" in refused(*FIT, "--model.audio_encoder", tmp_path / "wider" / "audio_encoder")


def test_a_damaged_backbone(refused, tmp_path):
    folder = shutil.copytree(embedded_backbone(), tmp_path / "culprit")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    assert "culprit" in refused(*FIT, "--model.backbone", folder)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sizes", "--architecture", "huge"], "huge"),
        (["sizes", "--folder", "tests"], "unet/config.json"),
        (["adapter", "--source", "none.bin"], "none.bin"),
        (["shards", "--segments", "none.csv", "--clips", "tests", "--out", "build/x"], "none.csv"),
        (["nonsense"], "nonsense"),
        (["fit"], "model"),
    ],
)
def test_other_commands(monkeypatch, capfd, arguments, words):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["apa_lightning"])
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    error = capfd.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_from_a_real_shell():
    done = subprocess.run(
        [sys.executable, "-m", "apa_lightning", *FIT, "--model.backbone", "nowhere/at/all"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
