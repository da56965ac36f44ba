"""A tiny editor and a clip for it; files that need others have their own."""

import pytest
import torch
from random_folders import tiny_parts
from tunes import melody

from apa_lightning import AudioEditor


@pytest.fixture(scope="module")
def editor() -> AudioEditor:
    return AudioEditor.from_pretrained(**tiny_parts())


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return melody(0, seconds=10.24)
