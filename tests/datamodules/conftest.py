"""Shards for the tests of the data module."""

from pathlib import Path

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from shard_tools import write_shards


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three uneven training shards of 4, 4 and 3 clips, and a validation shard of 5."""
    root = tmp_path_factory.mktemp("shards")
    write_shards(root, 11, 4)
    write_shards(root, 5, 5, name="validation", first=50)
    return root


@pytest.fixture
def every_step(tmp_path: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        tmp_path / "ckpt", "{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False
    )
