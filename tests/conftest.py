"""Shared fixtures: parts of a tiny random backbone."""

import os
from pathlib import Path

import numba_cache  # noqa: F401  before the packages under test, which import numba
import pytest
import threadpoolctl
import torch
from random_folders import tiny_backbone

from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.utils.openvino_module import SWITCH


@pytest.fixture(scope="session", autouse=True)
def _session():
    """One thread (two shared cores), no network, and torch alone: tests look into its calls."""
    os.environ["HF_HUB_OFFLINE"], os.environ[SWITCH] = "1", "0"
    torch.set_num_threads(1)
    with threadpoolctl.threadpool_limits(1):  # NumPy's and SciPy's own
        yield


@pytest.fixture()
def backbone() -> AudioLDM2Backbone:
    """A fresh tiny backbone: tests may install adapters."""
    return AudioLDM2Backbone.from_pretrained(tiny_backbone())


@pytest.fixture(scope="session")
def audio_encoder() -> AudioMAE:
    return AudioMAE.from_pretrained(tiny_backbone() / "audio_encoder")


@pytest.fixture(scope="session")
def eval_audio() -> list[Path]:
    """Real recordings (``APA_EVAL_AUDIO``)."""
    folder = Path(os.environ.get("APA_EVAL_AUDIO", Path(__file__).parents[2] / "shared" / "eval_audio"))
    found = sorted(folder.glob("*.wav")) if folder.is_dir() else []
    if not found:
        pytest.skip(f"no recordings in {folder}")
    return found
