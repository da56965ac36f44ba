"""The wheel works outside the checkout, with packaged configurations."""

import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
SOURCES = (
    "apa_lightning",
    "datamodules",
    "callbacks",
    "configs",
    "setup.cfg",
    "pyproject.toml",
    "README.md",
    "LICENSE",
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """Folder with the installed wheel, built from a copy of the checkout."""
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "target"))
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name, **({"symlinks": True} if copy is shutil.copytree else {}))
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "wheel", str(source), "--no-deps", "--no-build-isolation", "-w", str(wheels)], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", str(wheel), "--no-deps", "--target", str(target)], check=True)
    return target


def test_every_data_file_of_the_packages_is_listed():
    """A YAML table or template that a wheel lacks fails only outside the checkout."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    for package in ("apa_lightning", "datamodules", "callbacks"):
        patterns = config["options.package_data"].get(package, "").split()
        listed = {file for pattern in patterns for file in (ROOT / package).glob(pattern)}
        files = {file for file in (ROOT / package).rglob("*") if file.is_file() and "__pycache__" not in file.parts}
        assert {file for file in files - listed if file.suffix != ".py"} == set()


def run(installed: Path, folder: Path, *arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(installed / "bin" / "apa_lightning"), *arguments]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.slow
def test_predict_and_fit_of_the_wheel_in_an_empty_folder(installed, tmp_path):
    assert (installed / "apa_lightning" / "configs" / "training" / "ema.yaml").is_file()
    (tmp_path / "recordings").mkdir()
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    soundfile.write(tmp_path / "recordings" / "tone.wav", tone, 16000)
    prompt = ("--data.folder", "recordings", "--data.prompt", "a recording of a violin solo")
    run(installed, tmp_path, "predict", "--config", "pkg:predict.yaml", *prompt, "--data.num_inference_steps", "2")
    assert len(list((tmp_path / "edits").glob("*.wav"))) == 1
    configs = ("--config", "pkg:base.yaml", "--config", "pkg:training/ema.yaml")
    short = ("--trainer.max_steps", "2", "--trainer.val_check_interval", "2", "--trainer.limit_val_batches", "1")
    run(installed, tmp_path, "fit", *configs, *short, "--data.batch_size", "2")
    assert (tmp_path / "runs" / "lightning_logs" / "version_0" / "adapter.safetensors").is_file()
