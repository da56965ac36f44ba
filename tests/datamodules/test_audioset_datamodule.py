"""The datamodule under Lightning: batches, order, ranks, resuming, refusals."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from shard_tools import plain_tar, sample, tone, write_shards

from apa_lightning.errors import InputError
from datamodules.audioset import AudioSetDataModule
from datamodules.shards import urls as shards_module
from datamodules.shards.index import index_path
from datamodules.shards.loading import SampleOrder, evaluation_plan
from datamodules.shards.quarantine import QuarantineWarning


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three uneven training shards of 4, 4 and 3 clips, and a validation shard of 5."""
    root = tmp_path_factory.mktemp("shards")
    write_shards(root, 11, 4)
    write_shards(root, 5, 5, name="validation", first=50)
    return root


def module(folder: Path, **options: object) -> AudioSetDataModule:
    defaults: dict = {
        "train_shards": f"{folder}/train-*.tar",
        "validation_shards": f"{folder}/validation-*.tar",
        "batch_size": 2,
        "num_workers": 0,
        "audio_length_in_s": 1.0,
    }
    return AudioSetDataModule(**{**defaults, **options})


def on_rank(data: AudioSetDataModule, rank: int, world_size: int) -> AudioSetDataModule:
    """As if Lightning had attached one of several processes."""
    progress = SimpleNamespace(current=SimpleNamespace(ready=0))
    loops = SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        global_rank=rank, world_size=world_size, log_dir=None, fit_loop=loops, overfit_batches=0
    )
    data.setup("fit")
    return data


def keys(loader: object, epoch: int = 0) -> list[list[str]]:
    if hasattr(loader, "set_epoch"):
        loader.set_epoch(epoch)
    return [batch["key"] for batch in loader]  # type: ignore[attr-defined]


ALL = [f"train{i:03d}" for i in range(11)]


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2, 5])
def test_batches_keep_the_contract(folder: Path, workers: int) -> None:
    """Also with more workers than shards."""
    data = module(folder, num_workers=workers)
    data.setup("fit")
    for loader, steps in ((data.train_dataloader(), 6), (data.val_dataloader(), 3)):
        batches = list(loader)
        assert len(batches) == len(loader) == steps
        for batch in batches:
            size = len(batch["key"])
            assert set(batch) == {"key", "waveform", "num_samples", "prompt", "labels", "metadata"}
            assert all(1 <= count <= 16_000 for count in batch["num_samples"])
            assert batch["waveform"].shape == (size, 16_000) and batch["waveform"].dtype == torch.float32
            assert batch["waveform"].abs().max() <= 1
            assert all("piano, music" in prompt for prompt in batch["prompt"]) and len(batch["prompt"]) == size
            assert batch["labels"] == [["Piano", "Music"]] * size


def test_workers_change_nothing(folder: Path) -> None:
    found = []
    for workers in (0, 1, 3):
        data = module(folder, num_workers=workers)
        data.setup("fit")
        loader = data.train_dataloader()
        found.append([(b["key"], b["prompt"], b["waveform"].sum().item()) for _ in range(2) for b in loader])
    assert found[0] == found[1] == found[2]


def test_the_global_random_state_is_left_alone(folder: Path) -> None:
    data = module(folder, num_workers=1)
    data.setup("fit")
    before = torch.get_rng_state()
    list(data.train_dataloader())
    list(data.val_dataloader())
    assert torch.equal(torch.get_rng_state(), before)


def test_an_epoch_is_a_permutation_and_the_next_another(folder: Path) -> None:
    data = module(folder, batch_size=1)
    data.setup("fit")
    loader = data.train_dataloader()
    first, second = ([key for batch in keys(loader, epoch) for key in batch] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == ALL and first != second
    assert [key for batch in keys(loader, 0) for key in batch] == first
    other = module(folder, batch_size=1, seed=1)
    other.setup("fit")
    assert [key for batch in keys(other.train_dataloader(), 0) for key in batch] != first


def test_order_is_one_line_of_permutations() -> None:
    order = SampleOrder(7, 3, seed=5)
    line = [order(epoch, position) for epoch in range(7) for position in range(3)]
    assert [number for number, _ in line] == [0] * 7 + [1] * 7 + [2] * 7
    for number in range(3):
        assert sorted(s for n, s in line if n == number) == list(range(7))
    assert [order(0, p) for p in range(21)] == line == [SampleOrder(7, 21, seed=5)(0, p) for p in range(21)]


@pytest.mark.parametrize("samples_per_epoch", [1, 4, 11, 25])
def test_epochs_of_any_length(folder: Path, samples_per_epoch: int) -> None:
    data = module(folder, samples_per_epoch=samples_per_epoch)
    data.setup("fit")
    loader = data.train_dataloader()
    assert len(keys(loader)) == len(loader) == math.ceil(samples_per_epoch / 2)


def test_validation_is_always_the_same_and_can_be_thinned(folder: Path) -> None:
    data = module(folder)
    data.setup("validate")
    first, second = list(data.val_dataloader()), list(data.test_dataloader())
    assert [b["key"] for b in first] == [b["key"] for b in second]
    assert [b["prompt"] for b in first] == [b["prompt"] for b in second]
    assert [len(b["key"]) for b in first] == [2, 2, 1]
    thin = module(folder, validation_samples=2)
    thin.setup("validate")
    assert keys(thin.val_dataloader()) == [["validation050", "validation052"]]
    none = module(folder, validation_shards=None)
    none.setup("fit")
    assert none.val_dataloader() == []


# --- ranks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 4), (2, 2), (4, 1), (3, 2), (16, 2)])
def test_ranks_take_equal_steps_and_together_the_global_order(folder: Path, world_size: int, batch_size: int) -> None:
    """Rule: ceil(samples / (ranks * batch)) steps each; the last is filled up from the next epoch's beginning."""
    single = module(folder, batch_size=1, samples_per_epoch=64)
    single.setup("fit")
    order = [key for (key,) in keys(single.train_dataloader())]
    ranks = [on_rank(module(folder, batch_size=batch_size), rank, world_size) for rank in range(world_size)]
    found = [keys(data.train_dataloader()) for data in ranks]
    steps = math.ceil(11 / (world_size * batch_size))
    assert [len(batches) for batches in found] == [steps] * world_size
    together = [found[rank][step][i] for step in range(steps) for i in range(batch_size) for rank in range(world_size)]
    assert together == order[: steps * world_size * batch_size]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_validation_samples_come_once_over_all_ranks_in_equal_steps(
    folder: Path, world_size: int, batch_size: int
) -> None:
    ranks = [on_rank(module(folder, batch_size=batch_size), rank, world_size) for rank in range(world_size)]
    loaders = [data.val_dataloader() for data in ranks]
    found = [keys(loader) for loader in loaders]
    assert sorted(key for batches in found for batch in batches for key in batch) == [
        f"validation{i:03d}" for i in range(50, 55)
    ]
    assert len({len(batches) for batches in found} | {len(loader) for loader in loaders}) == 1
    assert max(len(batch) for batches in found for batch in batches) <= max(2, batch_size)


def test_evaluation_plans() -> None:
    for samples in range(1, 30):
        for world_size in range(1, min(samples, 6) + 1):
            for batch_size in (1, 2, 3, 7, 50):
                plans = [evaluation_plan(samples, None, batch_size, rank, world_size) for rank in range(world_size)]
                assert sorted(i for plan in plans for batch in plan for i in batch) == list(range(samples))
                assert len({len(plan) for plan in plans}) == 1 and all(batch for plan in plans for batch in plan)
                assert max(len(batch) for plan in plans for batch in plan) <= max(2, batch_size)
    assert evaluation_plan(100, 4, 2, 0, 1) == [[0, 25], [50, 75]]


def test_too_few_validation_clips_for_the_ranks_is_said(folder: Path) -> None:
    with pytest.raises(InputError, match=r"--data.init_args.validation_shards: fewer clips than the 6 processes"):
        on_rank(module(folder), 0, 6).val_dataloader()


# --- Lightning and resuming -------------------------------------------------------------------------------------------


class Recorder(LightningModule):
    """Notes what it is given; its loss depends on the data, its weight on all losses so far."""

    def __init__(self, touch: bool = False, fail_at: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.register_buffer("some_buffer", torch.zeros(3))  # DDP broadcasts buffers at each forward
        self.touch, self.fail_at = touch, fail_at
        self.seen: list = []
        self.validated: list[str] = []

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        if len(self.seen) == self.fail_at:
            raise RuntimeError("stop here")
        loss = (self.weight * batch["waveform"].square().mean() - len(batch["prompt"][0]) / 100) ** 2
        self.seen.append((self.current_epoch, batch_idx, batch["key"], batch["prompt"], loss.item()))
        return loss

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        self.validated += batch["key"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.touch:  # drops a loader's own state in lightning 2.6
            _ = self.trainer.estimated_stepping_batches
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(root: Path, **options: object) -> Trainer:
    defaults: dict = {
        "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
        "max_epochs": 3, "default_root_dir": root, "num_sanity_val_steps": 0, "enable_checkpointing": False,
    }  # fmt: skip
    return Trainer(**{**defaults, **options})


def fit(root: Path, folder: Path, model: Recorder, ckpt: Path | None = None, **options: object) -> Recorder:
    data = {
        k: options.pop(k)
        for k in ("batch_size", "num_workers", "samples_per_epoch", "seed", "train_shards")
        if k in options
    }
    trainer(root, **options).fit(model, module(folder, **data), ckpt_path=ckpt)
    return model


@pytest.fixture
def every_step(tmp_path: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        tmp_path / "ckpt", "{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False
    )


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


DDP = """
import json, sys
sys.path[:0] = {paths!r}
from pathlib import Path
from test_audioset_datamodule import Recorder, module, trainer
from lightning.pytorch.strategies import DDPStrategy

def main():
    folder, out, layouts = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    found = []
    for options in layouts:
        model = Recorder()
        # A stream's length is not known, so its ranks may validate in unequal steps.
        strategy = DDPStrategy(process_group_backend="gloo", broadcast_buffers="allow_pipe" not in options)
        machine = trainer(out, devices=2, strategy=strategy, max_epochs=2)
        machine.fit(model, module(folder, **options))
        fitted, model.validated = list(model.validated), []
        machine.validate(model, module(folder, **options), verbose=False)
        found.append({{"seen": [s[2] for s in model.seen], "fitted": fitted, "validated": model.validated}})
    (out / f"rank{{machine.global_rank}}.json").write_text(json.dumps(found))

if __name__ == "__main__":
    main()
"""


def test_two_real_ranks_finish(tmp_path: Path, folder: Path) -> None:
    """Uneven shards; one shard and batches of one; more workers than shards; streams of fewer shards than workers."""
    layouts: list[dict] = [
        {"batch_size": 2, "num_workers": 1},
        {"batch_size": 1, "train_shards": f"{folder}/train-000002.tar", "validation_samples": 2},
        {"batch_size": 2, "train_shards": f"pipe:cat {folder}/train-{{000000,000002}}.tar", "num_workers": 2,
         "validation_shards": f"pipe:cat {folder}/validation-000000.tar", "allow_pipe": True, "samples_per_epoch": 7},
    ]  # fmt: skip
    script = tmp_path / "run.py"
    here, root = Path(__file__).parent, Path(__file__).parents[2]
    script.write_text(DDP.format(paths=[str(here), str(root / "tests" / "helpers"), str(root)]))
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(tmp_path), json.dumps(layouts)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for options, first, second in zip(layouts, *ranks, strict=True):
        assert len(first["seen"]) == len(second["seen"]) > 0
        number = options.get("validation_samples", 5)
        expected = [f"validation{50 + i * 5 // number:03d}" for i in range(number)]
        assert sorted(first["validated"] + second["validated"]) == expected
        assert sorted(first["fitted"] + second["fitted"]) == sorted(expected * 2)


# --- broken data ------------------------------------------------------------------------------------------------------


def mixed_shard(folder: Path, good: int, broken: int) -> Path:
    members = [m for i in range(good) for m in sample(f"good{i}", i)]
    members += [m for i in range(broken) for m in ((f"bad{i}.wav", b"no audio"), sample(f"bad{i}")[1])]
    return plain_tar(folder / "mixed.tar", members)


@pytest.mark.parametrize("workers", [0, 2])
def test_broken_samples_leave_batches_full_and_are_reported(tmp_path: Path, folder: Path, workers: int) -> None:
    options = {"train_shards": str(mixed_shard(tmp_path, 18, 2)), "max_broken_share": 0.2}
    data = module(folder, quarantine_dir=tmp_path / "logs", num_workers=workers, batch_size=4, **options)
    data.setup("fit")
    with pytest.warns(QuarantineWarning):
        batches = keys(data.train_dataloader())
    assert [len(batch) for batch in batches] == [4] * 5
    assert {key for batch in batches for key in batch} == {f"good{i}" for i in range(18)}
    report = (tmp_path / "logs" / "quarantine-train.jsonl").read_text().splitlines()
    assert {json.loads(line)["key"] for line in report} == {"bad0", "bad1"}


@pytest.mark.filterwarnings("ignore::datamodules.shards.quarantine.QuarantineWarning")
def test_broken_validation_samples_make_batches_smaller(tmp_path: Path, folder: Path) -> None:
    data = module(folder, validation_shards=str(mixed_shard(tmp_path, 3, 4)), max_broken_share=0.9)
    data.setup("validate")
    assert keys(data.val_dataloader()) == [["good0", "good1"], ["good2"]]  # of 2, 2, 2 and 1


@pytest.mark.filterwarnings("ignore::datamodules.shards.quarantine.QuarantineWarning")
@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_broken_samples_stop_the_fit(tmp_path: Path, folder: Path, workers: int) -> None:
    data = module(folder, train_shards=str(mixed_shard(tmp_path, 6, 6)), num_workers=workers, max_broken_share=0.2)
    model = Recorder()
    with pytest.raises(InputError, match=r"too many broken train samples.*max_broken_share.*quarantine-train.jsonl"):
        trainer(tmp_path).fit(model, data)
    assert len((tmp_path / "quarantine-train.jsonl").read_text().splitlines()) == 6


@pytest.mark.filterwarnings("ignore::datamodules.shards.quarantine.QuarantineWarning")
def test_only_broken_samples_end_at_once(tmp_path: Path, folder: Path) -> None:
    data = module(folder, train_shards=str(mixed_shard(tmp_path, 0, 3)), max_broken_share=1.0)
    data.setup("fit")
    with pytest.raises(InputError, match="100 samples in a row were broken"):
        keys(data.train_dataloader())


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "--data.init_args.batch_size is 0; it must be a whole number, at least 1"),
        ({"num_workers": -1}, "--data.init_args.num_workers is -1"),
        (
            {"audio_length_in_s": 0.0},
            "--data.init_args.audio_length_in_s is 0.0; it must be a number, between 0.1 and 1800",
        ),
        ({"audio_length_in_s": math.nan}, "--data.init_args.audio_length_in_s is nan"),
        ({"sample_rate": 0}, "--data.init_args.sample_rate is 0"),
        ({"min_seconds": -1.0}, "--data.init_args.min_seconds is -1.0"),
        ({"samples_per_epoch": 0}, "--data.init_args.samples_per_epoch is 0"),
        ({"validation_samples": 0}, "--data.init_args.validation_samples is 0"),
        ({"max_broken_share": 1.5}, "--data.init_args.max_broken_share is 1.5; it must be a number, between 0 and 1"),
        ({"shuffle_buffer": 0}, "--data.init_args.shuffle_buffer is 0"),
        ({"caption_templates": ["x"]}, "--data.init_args.caption_templates"),
    ],
)
def test_settings_that_cannot_be(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        module(folder, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_missing_shards_are_named_before_work(folder: Path, tmp_path: Path, split: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"--data.init_args.{split}_shards.*none.tar"):
        module(folder, **{f"{split}_shards": str(tmp_path / "none.tar")}).setup("fit")
    (tmp_path / "empty.tar").touch()
    with pytest.raises(InputError, match=r"empty.tar' is empty"):
        module(folder, **{f"{split}_shards": str(tmp_path / "empty.tar")}).setup("fit")


def test_validation_on_training_data_is_refused(folder: Path, tmp_path: Path) -> None:
    shard = folder / "train-000001.tar"
    link = tmp_path / "other.tar"
    link.symlink_to(shard)
    for name in (shard, link, Path(f"{folder}/../{folder.name}/train-000001.tar")):
        with pytest.raises(InputError, match=r"--data.init_args.validation_shards.*is a training shard too"):
            module(folder, validation_shards=str(name)).setup("fit")
    url = "http://127.0.0.1:9/a.tar"
    with pytest.raises(InputError, match="is a training shard too"):
        module(folder, train_shards=url, validation_shards=url, samples_per_epoch=4).setup("fit")
    (copy,) = write_shards(tmp_path, 1, 1, name="copy", first=6)  # the same audio as train006 in another tar
    with pytest.raises(InputError, match=r"clip 'copy006' of .* is training clip 'train006'"):
        module(folder, validation_shards=str(copy)).setup("fit")
    module(folder, validation_shards=str(shard)).setup("validate")  # looking at training clips is no crime


def test_streamed_training_needs_a_length_and_commands_need_leave(folder: Path, tmp_path: Path) -> None:
    command = f"pipe:cat {folder}/train-000000.tar"
    with pytest.raises(InputError, match=r"--data.init_args.allow_pipe=true"):
        module(folder, train_shards=command).setup("fit")
    with pytest.raises(InputError, match=r"--data.init_args.samples_per_epoch is needed"):
        module(folder, train_shards=command, allow_pipe=True).setup("fit")


def test_missing_embedded_shards_are_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "EMBEDDED", tmp_path)
    with pytest.raises(FileNotFoundError, match="no shard matches"):
        module(folder, train_shards="embedded").setup("fit")


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


def test_tables_of_shards_without_indexes_work_too(tmp_path: Path) -> None:
    for shard in [*write_shards(tmp_path, 4, 2), *write_shards(tmp_path, 2, 2, name="validation", first=9)]:
        index_path(shard).unlink()
    data = module(tmp_path)
    data.setup("fit")
    assert sorted(key for batch in keys(data.train_dataloader()) for key in batch) == ALL[:4]
    assert keys(data.val_dataloader()) == [["validation009", "validation010"]]
    assert tone().shape == (19_200,)
