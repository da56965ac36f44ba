"""The data module of shards: its batches, their order, the share of each rank."""

import json
import math
import os
import warnings
from pathlib import Path

import pytest
import torch
from audioset_tools import ALL, Recorder, keys, module, on_rank, trainer
from lightning.pytorch.strategies import DDPStrategy
from processes import FORK, free_port
from shard_tools import tone, write_shards

from apa_lightning.errors import InputError
from datamodules.loading.order import EvaluationPlan, SampleOrder
from datamodules.shards.index import index_path


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
            assert set(batch) == {"key", "waveform", "num_samples", "start", "prompt", "labels", "metadata"}
            assert all(1 <= count <= 16_000 for count in batch["num_samples"])
            assert batch["waveform"].shape == (size, 16_000) and batch["waveform"].dtype == torch.float32
            assert batch["waveform"].abs().max() <= 1
            assert all("piano, music" in prompt for prompt in batch["prompt"]) and len(batch["prompt"]) == size
            assert batch["labels"] == [["Piano", "Music"]] * size


def test_the_start_of_a_window_is_where_it_lies_in_the_clip(folder: Path) -> None:
    data = module(folder, audio_length_in_s=0.25)
    data.setup("fit")
    whole = module(folder, audio_length_in_s=4.0, train_shards=data.train_shards)
    whole.setup("fit")
    clips = {
        key: w for batch in whole.train_dataloader() for key, w in zip(batch["key"], batch["waveform"], strict=True)
    }
    starts = []
    for batch in data.train_dataloader():
        for key, start, window in zip(batch["key"], batch["start"], batch["waveform"], strict=True):
            at = round(start * 16_000)
            assert torch.allclose(window, clips[key][at : at + len(window)], atol=2e-3)
            starts.append(start)
    assert len(set(starts)) > 3


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


def test_tables_of_shards_without_indexes_work_too(tmp_path: Path) -> None:
    for shard in [*write_shards(tmp_path, 4, 2), *write_shards(tmp_path, 2, 2, name="validation", first=9)]:
        index_path(shard).unlink()
    data = module(tmp_path)
    data.setup("fit")
    assert sorted(key for batch in keys(data.train_dataloader()) for key in batch) == ALL[:4]
    assert keys(data.val_dataloader()) == [["validation009", "validation010"]]
    assert tone().shape == (19_200,)


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
                plans = [EvaluationPlan(samples, None, batch_size, rank, world_size) for rank in range(world_size)]
                assert sorted(i for plan in plans for batch in plan for i in batch) == list(range(samples))
                assert len({len(list(plan)) for plan in plans} | {len(plan) for plan in plans}) == 1 and all(
                    batch for plan in plans for batch in plan
                )
                assert max(len(batch) for plan in plans for batch in plan) <= max(2, batch_size)
    assert list(EvaluationPlan(100, 4, 2, 0, 1)) == [[0, 25], [50, 75]]


def test_too_few_validation_clips_for_the_ranks_is_said(folder: Path) -> None:
    with pytest.raises(InputError, match=r"^validation_shards: fewer clips than the 6 processes"):
        on_rank(module(folder), 0, 6).val_dataloader()


def fit_on_rank(rank: int, port: int, folder: Path, out: Path, layouts: list[dict]) -> None:
    """Fit and validate with each layout as one of two real ranks, and write down what came."""
    warnings.resetwarnings()  # pytest makes errors of them
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    found = []
    for options in layouts:
        model = Recorder()
        # A stream's length is not known, so its ranks may validate in unequal steps.
        strategy = DDPStrategy(process_group_backend="gloo", broadcast_buffers="allow_pipe" not in options)
        machine = trainer(out, devices=2, strategy=strategy, max_epochs=2)
        machine.fit(model, module(folder, **options))
        fitted, model.validated = list(model.validated), []
        machine.validate(model, module(folder, **options), verbose=False)
        found.append({"seen": [s[2] for s in model.seen], "fitted": fitted, "validated": model.validated})
    (out / f"rank{rank}.json").write_text(json.dumps(found))


def test_two_real_ranks_finish(tmp_path: Path, folder: Path) -> None:
    """Uneven shards; one shard and batches of one; more workers than shards; streams of fewer shards than workers."""
    layouts: list[dict] = [
        {"batch_size": 2, "num_workers": 1},
        {"batch_size": 1, "train_shards": f"{folder}/train-000002.tar", "validation_samples": 2},
        {"batch_size": 2, "train_shards": f"pipe:cat {folder}/train-{{000000,000002}}.tar", "num_workers": 2,
         "validation_shards": f"pipe:cat {folder}/validation-000000.tar", "allow_pipe": True, "samples_per_epoch": 7},
    ]  # fmt: skip
    port = free_port()
    processes = [FORK.Process(target=fit_on_rank, args=(rank, port, folder, tmp_path, layouts)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(240)
    assert [process.exitcode for process in processes] == [0, 0]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    for options, first, second in zip(layouts, *ranks, strict=True):
        assert len(first["seen"]) == len(second["seen"]) > 0
        number = options.get("validation_samples", 5)
        expected = [f"validation{50 + i * 5 // number:03d}" for i in range(number)]
        assert sorted(first["validated"] + second["validated"]) == expected
        assert sorted(first["fitted"] + second["fitted"]) == sorted(expected * 2)
