"""Which checkpoint `--ckpt_path last` means."""

import os
from pathlib import Path

import pytest
import torch

from apa_lightning.errors import InputError
from apa_lightning.utils.checkpoints import check_checkpoint, last_checkpoint, run_of


def checkpoint(path: Path, age: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "loops": {}}, path)
    os.utime(path, (1_000_000 - age, 1_000_000 - age))
    return path


def test_the_newest_of_the_runs_is_taken_and_named(tmp_path, caplog):
    runs = tmp_path / "runs [1]"
    old = checkpoint(runs / "lightning_logs" / "version_0" / "checkpoints" / "last.ckpt", 9)
    new = checkpoint(runs / "lightning_logs" / "version_1" / "checkpoints" / "last-v1.ckpt", 5)
    checkpoint(runs / "lightning_logs" / "version_1" / "checkpoints" / "epoch=1.ckpt", 1)
    for elsewhere in (
        ".venv/lib/checkpoints/last.ckpt",
        "lightning_logs/.old/checkpoints/last.ckpt",
        "a/b/c/d/checkpoints/last.ckpt",
        "data/last.ckpt",
    ):
        checkpoint(runs / elsewhere, 0)
    with caplog.at_level("INFO"):
        assert last_checkpoint(runs) == new
    assert str(new) in caplog.text
    new.unlink()
    assert last_checkpoint(tmp_path) == old  # from the folder above, as `predict` does
    assert last_checkpoint(str(runs / "lightning_logs" / "version_0")) == old


def test_none(tmp_path):
    checkpoint(tmp_path / ".venv" / "checkpoints" / "last.ckpt", 0)
    with pytest.raises(FileNotFoundError, match=r"there is no last.ckpt .* below"):
        last_checkpoint(tmp_path)


def test_a_damaged_one_is_refused(tmp_path):
    path = checkpoint(tmp_path / "checkpoints" / "last.ckpt", 0)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"last.ckpt is damaged"):
        last_checkpoint(tmp_path)


def test_a_file_of_another_kind_is_said_to_be_one(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF" + bytes(200))
    with pytest.raises(InputError, match=r"a.wav is damaged or no checkpoint \(it is not a whole zip archive"):
        check_checkpoint(tmp_path / "a.wav")


def test_a_damaged_newest_one_is_passed_over(tmp_path, caplog):
    runs = tmp_path / "lightning_logs" / "version_0" / "checkpoints"
    old, best = checkpoint(runs / "last-v1.ckpt", 5), checkpoint(runs / "best.ckpt", 3)
    new = checkpoint(runs / "last.ckpt", 1)
    new.write_bytes(new.read_bytes()[:100])
    with pytest.warns(UserWarning, match="last.ckpt is damaged"):
        assert last_checkpoint(tmp_path) == old
    old.unlink()
    with pytest.warns(UserWarning, match="last.ckpt is damaged"):
        assert last_checkpoint(tmp_path) == best


def test_what_slurm_left_counts_and_names_its_run(tmp_path):
    checkpoint(tmp_path / "lightning_logs" / "version_3" / "checkpoints" / "last.ckpt", 5)
    left = tmp_path / "hpc_ckpt_1.ckpt"
    torch.save(
        {"state_dict": {}, "loops": {}, "callbacks": {"a": {}, "b": {"dirpath": "/runs/version_7/checkpoints"}}}, left
    )
    assert last_checkpoint(tmp_path) == left
    assert run_of(left) == Path("/runs/version_7")
    assert run_of(tmp_path / "version_3" / "checkpoints" / "last.ckpt") == tmp_path / "version_3"
