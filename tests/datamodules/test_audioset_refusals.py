"""The data module of shards: broken samples, and settings and shards that are refused."""

import json
import math
from pathlib import Path

import pytest
from audioset_tools import Recorder, keys, module, trainer
from shard_tools import plain_tar, sample, write_shards

from apa_lightning.errors import InputError
from datamodules.shards import urls as shards_module
from datamodules.shards.quarantine import QuarantineWarning


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
        ({"batch_size": 0}, "batch_size: 0; give a whole number of at least 1."),
        ({"num_workers": -1}, "num_workers: -1"),
        (
            {"audio_length_in_s": 0.0},
            "audio_length_in_s: 0.0; give a number between 0.1 and 1800.",
        ),
        ({"audio_length_in_s": math.nan}, "audio_length_in_s: nan"),
        ({"sample_rate": 0}, "sample_rate: 0"),
        ({"min_seconds": -1.0}, "min_seconds: -1.0"),
        ({"samples_per_epoch": 0}, "samples_per_epoch: 0"),
        ({"validation_samples": 0}, "validation_samples: 0"),
        ({"max_broken_share": 1.5}, "max_broken_share: 1.5; give a number between 0 and 1."),
        ({"shuffle_buffer": 0}, "shuffle_buffer: 0"),
        ({"caption_templates": ["x"]}, "caption_templates: "),
    ],
)
def test_settings_that_cannot_be(folder: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        module(folder, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_missing_shards_are_named_before_work(folder: Path, tmp_path: Path, split: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"^{split}_shards: .*none.tar"):
        module(folder, **{f"{split}_shards": str(tmp_path / "none.tar")}).setup("fit")
    (tmp_path / "empty.tar").touch()
    with pytest.raises(InputError, match=r"empty.tar' is empty"):
        module(folder, **{f"{split}_shards": str(tmp_path / "empty.tar")}).setup("fit")


def test_validation_on_training_data_is_refused(folder: Path, tmp_path: Path) -> None:
    shard = folder / "train-000001.tar"
    link = tmp_path / "other.tar"
    link.symlink_to(shard)
    for name in (shard, link, Path(f"{folder}/../{folder.name}/train-000001.tar")):
        with pytest.raises(InputError, match=r"^validation_shards: .*is a training shard too"):
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
    with pytest.raises(InputError, match=r"set `allow_pipe` to true"):
        module(folder, train_shards=command).setup("fit")
    with pytest.raises(InputError, match=r"^samples_per_epoch: is needed"):
        module(folder, train_shards=command, allow_pipe=True).setup("fit")


def test_missing_embedded_shards_are_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "EMBEDDED", tmp_path)
    with pytest.raises(FileNotFoundError, match="no shard matches"):
        module(folder, train_shards="embedded").setup("fit")
