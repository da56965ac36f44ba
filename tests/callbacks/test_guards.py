"""Guards that every training run has in addition to its configuration: a safe stop, skipped bad steps, a history."""

import contextlib
import json
import os
import signal
from types import SimpleNamespace

import lightning as L
import pytest
import torch
from fit_tools import Recorder, build, fit
from lightning.pytorch.callbacks import ModelCheckpoint

from apa_lightning.errors import InputError
from callbacks.guards import same_run
from callbacks.guards.nonfinite_steps import SkipNonFiniteSteps
from callbacks.guards.run_history import RunHistory
from callbacks.guards.stop_between_batches import StopBetweenBatches
from callbacks.last_checkpoint import LastCheckpoint


class Send(L.Callback):
    """Sends this process a signal, so many times, in its second step."""

    def __init__(self, number: int, times: int = 1):
        self.number, self.times = number, times

    def on_before_optimizer_step(self, trainer, *_):
        if trainer.global_step == 1:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_step_finish_and_saves(number, tmp_path):
    before, recorder = signal.getsignal(number), Recorder()
    callbacks = [StopBetweenBatches(), Send(number), recorder, ModelCheckpoint(tmp_path, save_top_k=0)]
    with pytest.raises(SystemExit) as stop:
        fit(build(), tmp_path, callbacks, steps=9, limit_val_batches=0)
    assert stop.value.code == 128 + number
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert state["global_step"] == len(recorder.trained) - 1 < 9
    saved = torch.cat([weight.flatten() for weight in state["state_dict"].values()])
    assert torch.equal(saved, recorder.trained[-1])
    assert signal.getsignal(number) == before


def test_ctrl_c_a_second_time_does_not_wait(tmp_path):
    callbacks = [StopBetweenBatches(), Send(signal.SIGINT, times=2), ModelCheckpoint(tmp_path, save_top_k=0)]
    with pytest.raises(SystemExit):
        fit(build(), tmp_path, callbacks, steps=9, limit_val_batches=0)
    assert not (tmp_path / "last.ckpt").exists()


def test_without_checkpoints_a_signal_saves_none(tmp_path):
    with pytest.raises(SystemExit):
        fit(build(), tmp_path, [StopBetweenBatches(), Send(signal.SIGTERM)], steps=9, limit_val_batches=0)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("differs", ["", "checkpoint", "data", "batch size", "backbone"])
def test_processes_that_do_not_have_the_same_are_refused(differs, tmp_path, monkeypatch):
    """As machines with disks of their own: the facts of both are gathered as torch would."""

    def of(own: str) -> tuple[SimpleNamespace, SimpleNamespace, str]:
        checkpoint = tmp_path / f"{own}.ckpt"
        checkpoint.write_bytes(own.encode() if differs == "checkpoint" else b"same")
        data = SimpleNamespace(
            batch_size=4 if own == "second" and differs == "batch size" else 2,
            describe=lambda: {"train": {"clips": 8, "digest": own if differs == "data" else "same"}},
        )
        trainer = SimpleNamespace(world_size=2, datamodule=data, max_steps=3)
        weights = torch.tensor([float(len(own)) if differs == "backbone" else 1.0])
        return trainer, SimpleNamespace(adapter=SimpleNamespace(backbone_fingerprint=weights), seed=0), str(checkpoint)

    second = ("node2", same_run._facts(*of("second")))
    monkeypatch.setattr(same_run.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(
        same_run.dist, "all_gather_object", lambda found, own: found.__setitem__(slice(None), [own, second])
    )
    named = {
        "checkpoint": r"^ckpt_path: process 0 on .* has a checkpoint of SHA-256 .*on node2 has a checkpoint",
        "data": r"^data\.train_shards: .*'first'.*'second'.*must be a folder that all machines share",
        "batch size": r"^data\.batch_size: process 0 on .* has 2, and process 1 on node2 has 4",
        "backbone": r"^model\.backbone: .*\['5'\].*\['6'\]",
    }
    trainer, module, checkpoint = of("first")
    with pytest.raises(InputError, match=named[differs]) if differs else contextlib.nullcontext():
        same_run.SameRun(checkpoint).setup(trainer, module, "fit")


def test_last_is_written_in_a_plateau_and_at_the_end(tmp_path):
    """Lightning's save_last follows the best: with a figure that never improves it would stay at the first validation."""

    class Worse(L.Callback):
        def on_validation_epoch_end(self, trainer, pl_module):
            pl_module.log("worse", float(trainer.global_step))

    class Watch(L.Callback):
        def __init__(self):
            self.seen = []

        def on_train_batch_start(self, trainer, *_):
            path = tmp_path / "last.ckpt"
            self.seen.append(torch.load(path, weights_only=True)["global_step"] if path.exists() else 0)

    best, watch = ModelCheckpoint(tmp_path, monitor="worse", enable_version_counter=False), Watch()
    fit(build(), tmp_path, [Worse(), best, LastCheckpoint(dirpath=str(tmp_path)), watch], steps=5, val_check_interval=1)
    assert watch.seen == [0, 1, 2, 3, 4]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["epoch=0-step=1.ckpt", "last.ckpt"]


def test_settings_that_cannot_be():
    with pytest.raises(InputError, match="max_in_a_row: 0; give 1 or more"):
        SkipNonFiniteSteps(0)


def test_a_run_that_breaks_says_so_in_its_history(tmp_path):
    class Breaks(L.Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("a bug\nin two lines")

    with pytest.raises(RuntimeError):
        fit(build(), tmp_path, [RunHistory(), Breaks()])
    start, end = (json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines())
    assert (start["event"], start["step"], start["resumed_from"], start["processes"]) == ("start", 0, None, 1)
    assert (end["event"], end["step"], end["how"], end["message"]) == ("end", 1, "RuntimeError", "a bug")
    assert start["git"] is None or len(start["git"]["commit"]) == 40
