"""The real command line on the embedded data: base.yaml with the pocket once, the rest with a tiny random backbone."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from processes import Command
from random_folders import tiny_flags
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from apa_lightning.audio import load_audio
from apa_lightning.cli.main import main

ROOT = Path(__file__).parents[2]
WINDOW = 32
SMALL = ["--config", "configs/base.yaml", "--config", "tests/small.yaml"]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["apa_lightning"])


def fit(folder: Path, *arguments: str) -> None:
    main(["fit", *SMALL, *tiny_flags(WINDOW), "--trainer.default_root_dir", str(folder), *arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A short run of base.yaml as it is, with the pocket; the run's folder."""
    root = tmp_path_factory.mktemp("runs")
    os.chdir(ROOT)
    main(
        [
            "fit",
            *SMALL,
            "--trainer.default_root_dir",
            str(root),
            "--trainer.max_steps",
            "4",
            "--trainer.val_check_interval",
            "4",
            "--initial_validation",
            "true",
        ]
    )
    return root / "lightning_logs" / "version_0"


def test_fit_leaves_what_the_readme_says(run):
    assert (run / "config.yaml").is_file()
    weights = safetensors.torch.load_file(run / "adapter.safetensors")
    assert all(key.endswith(("to_k_ip.weight", "to_v_ip.weight")) for key in weights)
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert set(checkpoint["state_dict"]) == {f"adapter.{key}" for key in weights}
    wavs = sorted((run / "samples").glob("step-*/*.wav"))
    assert {path.stem.rsplit("-", 1)[1] for path in wavs} == {"source", "edited", "text_only"}
    for path in wavs:
        waveform, rate = load_audio(path)
        assert (rate, waveform.shape) == (16_000, (1, 81_920))
        assert waveform.abs().max() > 0.01
    events = EventAccumulator(str(run)).Reload()
    tags = events.Tags()
    assert {
        "train/loss",
        "val/loss",
        "val/loss_shuffled_omega_8",
        "metrics/chroma/edited",
        "metrics/clap/no_op",
    } <= set(tags["scalars"])
    assert tags["audio"]
    assert tags["images"]
    assert [min(event.step for event in events.Scalars(tag)) for tag in ("val/loss", "metrics/chroma/edited")] == [0, 0]
    assert (run / "samples" / "step-000000").is_dir()


def test_the_trained_adapter_edits(run, tmp_path, capsys):
    source = next((run / "samples").glob("step-*/*source.wav"))
    main(
        [
            "predict",
            "--config",
            "configs/predict.yaml",
            "--config",
            "configs/tasks/timbre.yaml",
            "--model.adapter",
            str(run / "adapter.safetensors"),
            "--data.folder",
            str(source.parent),
            "--data.prompt",
            "a recording of a violin solo",
            "--data.num_inference_steps",
            "1",
            "--data.output",
            str(tmp_path / "edits"),
            "--trainer.accelerator",
            "cpu",
        ]
    )
    lines = [json.loads(line) for line in (tmp_path / "edits" / "results.jsonl").read_text().splitlines()]
    assert len(lines) == len(list(source.parent.glob("*.wav")))
    with open(tmp_path / "edits" / "results.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(lines)
    assert "made" in capsys.readouterr().out


def test_validate_with_the_newest_checkpoint(run, capsys):
    main(
        [
            "validate",
            *SMALL,
            "--trainer.callbacks",
            "null",
            "--trainer.logger",
            "false",
            "--trainer.default_root_dir",
            str(run.parents[1]),
            "--ckpt_path",
            "last",
        ]
    )
    assert "val/loss" in capsys.readouterr().out


def test_convert_adapter_files(run, tmp_path, capsys):
    main(["adapter", "--source", str(run / "adapter.safetensors"), "--to", str(tmp_path / "pytorch_model.bin")])
    main(["adapter", "--source", str(tmp_path / "pytorch_model.bin"), "--to", str(tmp_path / "back.safetensors")])
    assert "7 layers" in capsys.readouterr().out
    first, second = (
        safetensors.torch.load_file(path) for path in (run / "adapter.safetensors", tmp_path / "back.safetensors")
    )
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_resume_is_exact_in_the_middle_of_an_epoch(tmp_path):
    """Five steps at once, and three plus two: the same weights, average and losses, bit for bit, in one folder."""
    quick = [
        "--trainer.limit_val_batches",
        "0",
        "--trainer.num_sanity_val_steps",
        "0",
        "--trainer.callbacks",
        "[{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {save_last: true}}, {class_path: callbacks.AdapterEMA}]",
    ]
    fit(tmp_path / "whole", *quick, "--trainer.max_steps", "5")
    fit(tmp_path / "parts", *quick, "--trainer.max_steps", "3")
    fit(tmp_path / "parts", *quick, "--trainer.max_steps", "5", "--ckpt_path", "last")

    def state(root: str) -> dict:
        return torch.load(tmp_path / root / "lightning_logs/version_0/checkpoints/last.ckpt", weights_only=True)

    def losses(root: str) -> dict[int, float]:
        events = EventAccumulator(str(tmp_path / root / "lightning_logs/version_0")).Reload()
        return {event.step: event.value for event in events.Scalars("train/loss")}

    whole, parts = state("whole"), state("parts")
    assert whole["global_step"] == parts["global_step"] == 5
    assert all(torch.equal(value, parts["state_dict"][key]) for key, value in whole["state_dict"].items())
    assert losses("parts") == losses("whole") and len(losses("parts")) == 5
    history = [
        json.loads(line)
        for line in (tmp_path / "parts/lightning_logs/version_0/history.jsonl").read_text().splitlines()
    ]
    assert [(line["event"], line["step"]) for line in history] == [("start", 0), ("end", 3), ("start", 3), ("end", 5)]
    assert history[2]["resumed_from"].endswith("last.ckpt") and history[1]["how"] == "finished"
    assert history[0]["data"] == history[2]["data"] and history[0]["data"]["train"]["clips"] == 160
    assert torch.__version__.startswith(history[0]["versions"]["torch"])
    earlier, now = (
        yaml.safe_load((tmp_path / f"parts/lightning_logs/version_0/{name}.yaml").read_text())
        for name in ("config-1", "config")
    )
    assert (earlier["trainer"].pop("max_steps"), now["trainer"].pop("max_steps")) == (3, 5)
    assert earlier == now and now["ckpt_path"] is None
    average = next(key for key in whole["callbacks"] if "AdapterEMA" in key)

    def tensors(value) -> list[torch.Tensor]:
        if isinstance(value, dict):
            return [tensor for inner in value.values() for tensor in tensors(inner)]
        return [value] if isinstance(value, torch.Tensor) else []

    first, second = (tensors(one["callbacks"][average]) for one in (whole, parts))
    assert first
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


TWO = (
    "--trainer.max_steps=2", "--trainer.val_check_interval=2", "--data.validation_samples=5",
    "--initial_validation=true",
)  # fmt: skip


@pytest.mark.parametrize("launch", ["torchrun", pytest.param("lightning", marks=pytest.mark.slow)])
def test_two_processes(launch, tmp_path):
    """DDP on two CPU processes: uneven validation, one set of files, no hang."""
    arguments = ["fit", *SMALL, *tiny_flags(WINDOW), f"--trainer.default_root_dir={tmp_path}", *TWO]
    if launch == "torchrun":  # it sets each process's rank and starts the command in it
        running = Command(arguments, tmp_path / "log.txt", ranks=2)
        assert running.wait() == 0, running.output[-3000:]
    else:
        command = [sys.executable, "-m", "apa_lightning", *arguments, "--trainer.devices=2", "--trainer.strategy=ddp"]
        done = subprocess.run(
            command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr[-3000:]
    version = tmp_path / "lightning_logs" / "version_0"
    assert (version / "adapter.safetensors").is_file()
    assert not (tmp_path / "lightning_logs" / "version_1").exists()
    events = EventAccumulator(str(version)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1]
    assert [event.step for event in events.Scalars("metrics/chroma/edited")] == [0, 1]
