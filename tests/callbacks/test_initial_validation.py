"""Validation before the first step: logged at step 0, once, and without a trace in training and its checkpoints."""

import os
import signal

import lightning as L
import pytest
import torch
from fit_tools import PLAN, Recorder, build, clips, fit, loader
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from callbacks.adapter_ema import AdapterEMA
from callbacks.adapter_export import AdapterExport
from callbacks.guards.stop_between_batches import StopBetweenBatches
from callbacks.initial_validation import InitialValidation
from callbacks.last_checkpoint import LastCheckpoint
from callbacks.monitors import Throughput
from callbacks.step_progress import StepProgress
from callbacks.validation.edit_metrics import EditMetrics


class Steps(L.Callback):
    """Notes the step of each validation, and logs a score that is best before training."""

    def __init__(self):
        self.validated = []

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validated.append("sanity" if trainer.sanity_checking else trainer.global_step)
        pl_module.log("score", -float(trainer.global_step))


def test_every_curve_starts_at_step_0(tmp_path):
    logger, steps = CSVLogger(tmp_path), Steps()
    callbacks = [steps, EditMetrics(PLAN), InitialValidation(), Throughput(), StepProgress()]
    fit(build(), tmp_path, callbacks, logger=logger, enable_progress_bar=True, num_sanity_val_steps=1)
    assert steps.validated == ["sanity", 0, 1, 2]
    rows = [line.split(",") for line in (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()]
    for name in ("val/loss", "metrics/chroma/edited", "metrics/clap/edited"):
        column = rows[0].index(name)
        logged = [int(row[rows[0].index("step")]) for row in rows[1:] if row[column]]
        assert logged[0] == 0 and len(logged) == 3


def test_training_is_the_same_as_without(tmp_path):
    found = {}
    for name in ("with", "without"):
        recorder = Recorder()
        first = [InitialValidation()] if name == "with" else []
        callbacks = [recorder, AdapterEMA(), *first, LastCheckpoint(dirpath=str(tmp_path / name))]
        fit(build(), tmp_path / name, callbacks, steps=3, accumulate_grad_batches=2)
        state = torch.load(tmp_path / name / "last.ckpt", weights_only=True)
        found[name] = torch.stack(recorder.trained), state["loops"], len(recorder.validated)
    assert torch.equal(found["with"][0], found["without"][0]) and found["with"][1] == found["without"][1]
    assert found["with"][2] == found["without"][2] + 1


def test_checkpoints_exports_and_early_stopping_do_not_count_the_untrained_adapter(tmp_path):
    class Files(L.Callback):
        def on_train_batch_start(self, trainer, *_):
            self.found = getattr(self, "found", list(tmp_path.rglob("*.safetensors")) + list(tmp_path.rglob("*.ckpt")))
            self.known = getattr(self, "known", dict(trainer.callback_metrics))

    files, stop = Files(), EarlyStopping("score", mode="max", patience=9)
    train = EarlyStopping("train/loss", patience=9)  # there is no such score before the first step
    best = ModelCheckpoint(tmp_path / "best", monitor="score", mode="max")
    often = ModelCheckpoint(tmp_path / "often", "{step}", monitor="score", mode="max", every_n_train_steps=1)
    export = AdapterExport(folder=str(tmp_path))
    fit(build(), tmp_path, [Steps(), stop, train, export, best, often, files, InitialValidation()])
    assert not files.found and not files.known
    assert (best.best_model_score, often.best_model_score, stop.best_score) == (-1, -1, -1)
    assert (tmp_path / "adapter.safetensors").is_file()


def test_a_resumed_run_does_not_repeat_it(tmp_path):
    def run(folder, steps, ckpt_path=None):
        watch, recorder = Steps(), Recorder()
        callbacks = [watch, recorder, InitialValidation(), LastCheckpoint(dirpath=str(folder))]
        fit(build(), folder, callbacks, steps, ckpt_path)
        return watch.validated, recorder.trained

    validated, whole = run(tmp_path / "whole", 4)
    assert validated == [0, 1, 2, 3, 4]
    run(tmp_path / "parts", 2)
    validated, parts = run(tmp_path / "parts", 4, tmp_path / "parts" / "last.ckpt")
    assert validated == [3, 4]
    assert all(torch.equal(a, b) for a, b in zip(whole[2:], parts, strict=True))


@pytest.mark.parametrize("options", [{"limit_val_batches": 0}, {"fast_dev_run": True}, {"num_sanity_val_steps": 1}])
def test_other_settings_of_the_trainer(tmp_path, options):
    steps = Steps()
    fit(build(), tmp_path, [steps, InitialValidation()], steps=1, **options)
    expected = {"limit_val_batches": [], "fast_dev_run": [0, 1], "num_sanity_val_steps": ["sanity", 0, 1]}
    assert steps.validated == expected[next(iter(options))]


def test_without_validation_clips_training_starts_at_once(tmp_path):
    steps, module = Steps(), build()
    trainer = L.Trainer(
        max_steps=1, default_root_dir=tmp_path, accelerator="cpu", callbacks=[steps, InitialValidation()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    for validation in ([], None):
        trainer.fit(module, loader(clips(2, module.backbone.window_samples)), validation)
        assert not steps.validated


def test_a_run_that_is_stopped_in_it_starts_again_with_it(tmp_path):
    class Send(L.Callback):
        def on_validation_batch_start(self, *_):
            os.kill(os.getpid(), signal.SIGTERM)

    def run(folder, *more, ckpt_path=None):
        steps, recorder, module = Steps(), Recorder(), build()
        saves = ModelCheckpoint(folder, save_top_k=0)
        trainer = L.Trainer(
            max_steps=3, default_root_dir=folder, accelerator="cpu", logger=False, val_check_interval=1,
            callbacks=[StopBetweenBatches(), *more, steps, recorder, saves, InitialValidation()],
            check_val_every_n_epoch=None, enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        )  # fmt: skip
        items = clips(8, module.backbone.window_samples)
        trainer.fit(module, loader(items[:4]), loader(items[4:]), ckpt_path=ckpt_path)
        return steps.validated, recorder.trained

    whole = run(tmp_path / "whole")
    assert whole[0] == [0, 1, 2, 3]
    with pytest.raises(SystemExit):
        run(tmp_path / "parts", Send())
    path = tmp_path / "parts" / "last.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == 0
    resumed = run(tmp_path / "parts", ckpt_path=path)
    assert resumed[0] == whole[0] and all(torch.equal(a, b) for a, b in zip(whole[1], resumed[1], strict=True))
