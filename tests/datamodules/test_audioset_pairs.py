"""Batches of pairs: the audio prompts next to the targets, in mixed batches, streams and resumed runs."""

from pathlib import Path

import pytest
import torch
from audioset_tools import Recorder, module, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from shard_tools import clip

from apa_lightning.errors import InputError
from datamodules.shards.writer import ShardWriter

LABELS = {"labels": ["Piano"]}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve training clips of 3 s and four of validation; every third has no audio prompt of its own."""
    root = tmp_path_factory.mktemp("pairs")
    for name, numbers in (("train", range(12)), ("validation", range(12, 16))):
        with ShardWriter(root / (name + "-{:06d}.tar"), max_samples=4) as writer:
            for i in numbers:
                prompt = None if i % 3 == 0 else clip(i + 40, 3.0)
                writer.write(f"{name}{i:03d}", clip(i, 3.0), "flac", LABELS, prompt)
    return root


def pitch(waveform: torch.Tensor) -> int:
    return int(torch.fft.rfft(waveform).abs().argmax())


def batches(data) -> list[dict]:
    data.setup("fit")
    return [*data.train_dataloader(), *data.val_dataloader()]


def streamed(root: Path) -> dict:
    urls = {f"{name}_shards": f"pipe:cat {root}/{name}-000000.tar" for name in ("train", "validation")}
    return {**urls, "allow_pipe": True, "samples_per_epoch": 4}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_a_mixed_batch_holds_a_prompt_for_each_clip(pairs: Path, workers: int, stream: bool) -> None:
    found = batches(module(pairs, num_workers=workers, batch_size=4, **(streamed(pairs) if stream else {})))
    assert len(found) >= (2 if stream else 4)
    for batch in found:
        size = len(batch["key"])
        assert batch["prompt_waveform"].shape == batch["waveform"].shape == (size, 16_000)
        assert batch["prompt_num_samples"] == batch["num_samples"] == [16_000] * size
        for key, target, prompt in zip(batch["key"], batch["waveform"], batch["prompt_waveform"], strict=True):
            own, number = torch.equal(target, prompt), int(key[-3:])
            assert own == (number % 3 == 0) and pitch(prompt) == 200 + 10 * (number if own else number + 40)


def test_a_batch_without_any_pair_has_no_prompts(pairs: Path) -> None:
    found = batches(module(pairs, batch_size=1))
    assert [int(b["key"][0][-3:]) % 3 != 0 for b in found] == ["prompt_waveform" in b for b in found]


def test_self_prompts_are_drawn_in_training_alone(pairs: Path) -> None:
    data = module(pairs, batch_size=1, self_prompts=1.0)
    data.setup("fit")
    assert not any("prompt_waveform" in batch for batch in data.train_dataloader())
    assert sum("prompt_waveform" in batch for batch in data.val_dataloader()) == 2
    with pytest.raises(InputError, match=r"self_prompts: 1\.5"):
        module(pairs, self_prompts=1.5)


def test_the_prompts_are_counted(pairs: Path) -> None:
    data = module(pairs)
    data.setup("fit")
    assert {split: about["audio_prompts"] for split, about in data.describe().items()} == {"train": 8, "validation": 2}


class Listener(Recorder):
    """Notes also what the audio prompts were."""

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        self.seen[-1] += (batch.get("prompt_waveform", batch["waveform"]).sum(dim=1).tolist(),)
        return loss


def test_a_resumed_run_draws_the_same_prompts(tmp_path: Path, pairs: Path, every_step: ModelCheckpoint) -> None:
    def fit(ckpt: Path | None = None, workers: int = 0, **options) -> Listener:
        model = Listener()
        data = module(pairs, batch_size=3, self_prompts=0.5, num_workers=workers)
        trainer(tmp_path, max_epochs=2, **options).fit(model, data, ckpt_path=ckpt)
        return model

    whole = fit(callbacks=[every_step], enable_checkpointing=True)
    assert len(whole.seen) == 8
    for step in (1, 4, 6):
        assert fit(tmp_path / "ckpt" / f"step={step}.ckpt", workers=step % 3).seen == whole.seen[step:]
