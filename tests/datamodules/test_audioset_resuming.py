"""The data module of shards under Lightning: a run that resumes repeats and skips nothing."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from audioset_tools import Recorder, fit, keys, module, trainer
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from apa_lightning.errors import InputError


@pytest.mark.parametrize("touch", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_after_any_step_repeats_and_skips_nothing(
    tmp_path: Path, folder: Path, every_step: ModelCheckpoint, workers: int, touch: bool
) -> None:
    whole = fit(tmp_path, folder, Recorder(), callbacks=[every_step], enable_checkpointing=True)
    assert len(whole.seen) == 18
    for step in (1, 4, 5, 6, 7, 12, 17) if workers == 0 and not touch else (1, 6, 9):
        resumed = fit(tmp_path, folder, Recorder(touch), tmp_path / "ckpt" / f"step={step}.ckpt", num_workers=workers)
        assert resumed.seen == whole.seen[step:], f"after step {step}"
        assert torch.equal(resumed.weight, whole.weight)


class SaveEverywhere(Callback):
    """Checkpoints inside validation and at the end of each epoch, named by the batches that are done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"validation-{len(module.seen)}.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.save_checkpoint(self.folder / f"epoch-{len(module.seen)}.ckpt")


def test_resuming_after_an_epoch_s_end_and_inside_validation(tmp_path: Path, folder: Path) -> None:
    whole = fit(tmp_path, folder, Recorder(), callbacks=[SaveEverywhere(tmp_path)], val_check_interval=2)
    paths = sorted(tmp_path.glob("*.ckpt"))
    assert len(paths) == 9 + 3
    for path in paths:
        resumed = fit(tmp_path, folder, Recorder(), path, val_check_interval=2)
        assert resumed.seen == whole.seen[int(path.stem.split("-")[1]) :], path.name


def test_a_batch_that_was_fetched_and_not_finished_comes_again(tmp_path: Path, folder: Path) -> None:
    whole = fit(tmp_path, folder, Recorder())
    for fail_at in (0, 3, 6, 10):
        path = tmp_path / f"{fail_at}.ckpt"
        broken, machine = Recorder(fail_at=fail_at), trainer(tmp_path)
        with pytest.raises(RuntimeError, match="stop here"):
            machine.fit(broken, module(folder))
        machine.save_checkpoint(path)
        assert fit(tmp_path, folder, Recorder(), path).seen == whole.seen[fail_at:]


def test_resuming_with_accumulated_gradients(tmp_path: Path, folder: Path, every_step: ModelCheckpoint) -> None:
    whole = fit(
        tmp_path, folder, Recorder(), callbacks=[every_step], enable_checkpointing=True, accumulate_grad_batches=2
    )
    for step in (1, 2, 3, 4, 7):
        path = tmp_path / "ckpt" / f"step={step}.ckpt"
        assert fit(tmp_path, folder, Recorder(), path, accumulate_grad_batches=2).seen == whole.seen[2 * step :]


@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_resuming_with_another_batch_size_keeps_the_sample(
    tmp_path: Path, folder: Path, every_step: ModelCheckpoint, batch_size: int
) -> None:
    whole = fit(
        tmp_path,
        folder,
        Recorder(),
        callbacks=[every_step],
        enable_checkpointing=True,
        samples_per_epoch=24,
        max_epochs=1,
    )
    resumed = fit(
        tmp_path,
        folder,
        Recorder(),
        tmp_path / "ckpt" / "step=6.ckpt",
        batch_size=batch_size,
        samples_per_epoch=24,
        max_epochs=1,
    )

    def line(model: Recorder) -> list[str]:
        return [key for _, _, batch, _, _ in model.seen for key in batch]

    assert line(resumed)[:12] == line(whole)[12:] and len(resumed.seen) == math.ceil(12 / batch_size)


def test_resuming_on_other_data_is_refused(tmp_path: Path, folder: Path, every_step: ModelCheckpoint) -> None:
    fit(tmp_path, folder, Recorder(), callbacks=[every_step], enable_checkpointing=True, max_epochs=1)
    path = tmp_path / "ckpt" / "step=2.ckpt"
    with pytest.raises(InputError, match="had seed = 0, and now it is 3"):
        fit(tmp_path, folder, Recorder(), path, seed=3)
    with pytest.raises(InputError, match="had samples = 11, and now it is 8"):
        fit(tmp_path, folder, Recorder(), path, train_shards=f"{folder}/train-{{000000..000001}}.tar")


def test_without_a_trainer_a_loader_resumes_by_its_own_count(folder: Path) -> None:
    data = module(folder)
    data.setup("fit")
    loader = data.train_dataloader()
    whole = keys(loader, 2)
    batches: Iterator = iter(loader)
    for _ in range(4):
        next(batches)
    state = json.loads(json.dumps(data.state_dict()))
    again = module(folder)
    again.setup("fit")
    again.load_state_dict(state)
    loader = again.train_dataloader()
    assert len(loader) == 6 and [b["key"] for b in loader] == whole[4:]
    assert keys(loader, 2) == whole and keys(loader, 3) != whole


def test_a_place_that_was_loaded_for_validating_is_forgotten(
    tmp_path: Path, folder: Path, every_step: ModelCheckpoint
) -> None:
    whole = fit(tmp_path, folder, Recorder(), callbacks=[every_step], enable_checkpointing=True, max_epochs=1)
    data, model, machine = module(folder), Recorder(), trainer(tmp_path, max_epochs=1)
    machine.validate(model, data, ckpt_path=tmp_path / "ckpt" / "step=2.ckpt", verbose=False)
    machine.fit(model, data)
    assert [seen[2] for seen in model.seen] == [seen[2] for seen in whole.seen]


def test_epochs_that_are_left_early_begin_anew(tmp_path: Path, folder: Path) -> None:
    model = Recorder()
    trainer(tmp_path, limit_train_batches=2, limit_val_batches=1).fit(model, module(folder, num_workers=2))
    data = module(folder)
    data.setup("fit")
    loader = data.train_dataloader()
    assert [batch for _, _, batch, _, _ in model.seen] == [
        batch for epoch in range(3) for batch in keys(loader, epoch)[:2]
    ]


def test_overfitting_serves_one_epoch_again_and_again(tmp_path: Path, folder: Path) -> None:
    model = Recorder()
    trainer(tmp_path, overfit_batches=2, limit_val_batches=0).fit(model, module(folder))
    batches = [batch for _, _, batch, _, _ in model.seen]
    assert len(batches) == 6 and batches[:2] == batches[2:4] == batches[4:]


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_fit_resumes_at_the_right_sample(
    tmp_path: Path, folder: Path, every_step: ModelCheckpoint, workers: int
) -> None:
    """The same layout of workers, as the docstring of `streamed_shards` says."""
    shards = [f"pipe:cat {folder}/train-{i:06d}.tar" for i in range(3)]

    def run(ckpt: Path | None, **options: object) -> Recorder:
        data = module(
            folder, train_shards=shards, allow_pipe=True, samples_per_epoch=9, shuffle_buffer=4, num_workers=workers
        )
        model = Recorder()
        trainer(tmp_path, max_epochs=2, limit_val_batches=0, **options).fit(model, data, ckpt_path=ckpt)
        return model

    whole = run(None, callbacks=[every_step], enable_checkpointing=True)
    assert len(whole.seen) == 10
    for step in (1, 4, 5, 7):
        assert run(tmp_path / "ckpt" / f"step={step}.ckpt").seen == whole.seen[step:]
