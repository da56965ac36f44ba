"""Shards on a server with an index next to them: the order, the resuming and the checks of local shards."""

import functools
import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from audioset_tools import keys, module
from shard_tools import Quiet, Ranged, decoder, flip, served, write_shards

from apa_lightning.errors import InputError
from datamodules import remote
from datamodules.shards.index import index_path, read_index
from datamodules.shards.indexed import IndexedShards
from datamodules.shards.samples import LOST
from datamodules.shards.table import SampleTable


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE", 0.0)
    monkeypatch.setattr(remote, "TRIES", 3)


@pytest.fixture
def www(tmp_path: Path) -> Path:
    """Shards of 2, 2 and 1 clips, and a validation shard of 3."""
    write_shards(tmp_path / "www", 5, 2)
    write_shards(tmp_path / "www", 3, 3, name="validation", first=50)
    return tmp_path / "www"


def remote_module(url: str, **options: object):
    shards = [f"{url}/train-00000{number}.tar" for number in range(3)]
    names = {"train_shards": shards, "validation_shards": f"{url}/validation-000000.tar", **options}
    return module(Path(), **names)


def read_all(*urls: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """Every sample once: the audio by key, and the reasons of faults by key."""
    table = SampleTable(urls)
    fetched = [IndexedShards(table, decoder(), substitute=False)[i] for i in range(len(table))]
    assert not any(f.stop for f in fetched)
    faults = [*table.faults, *(fault for f in fetched for fault in f.faults)]
    examples = {f.example["key"]: f.example["waveform"].numpy().tobytes() for f in fetched if f.example}
    return examples, {fault.key: fault.reason for fault in faults}


def test_the_order_and_the_place_are_those_of_local_shards(www: Path) -> None:
    local = module(www)
    local.setup("fit")
    batches = local.train_dataloader()
    whole = [keys(batches, epoch) for epoch in range(2)]
    asked: list[tuple[str, str]] = []
    with served(www, functools.partial(Ranged, asked=asked)) as url:
        data = remote_module(url, num_workers=1)
        data.setup("fit")
        loader = data.train_dataloader()
        asked.clear()
        assert [keys(loader, epoch) for epoch in range(2)] == whole
        assert len(asked) == sum(len(batch) for epoch in whole for batch in epoch)  # one request for a clip
        loader.close()
        assert keys(data.val_dataloader()) == keys(local.val_dataloader())
        place: Iterator = iter(batches)  # of a local run, in the middle of an epoch
        batches.set_epoch(2)
        done = [next(place)["key"] for _ in range(2)]
        state = json.loads(json.dumps(local.state_dict()))
        rest = [batch["key"] for batch in place]
        again = remote_module(url)
        again.setup("fit")
        again.load_state_dict(state)
        assert [batch["key"] for batch in again.train_dataloader()] == rest and done
        state["train"] = {
            "epoch": 0,
            "batch": 1,
            "sample": 2,
            "step_size": 2,
            "shards": 3,
            "samples_per_epoch": 5,
            "seed": 0,
        }
        with pytest.raises(InputError, match=r"were streamed, and now they are read by index.*Set `stream` to true"):
            again.load_state_dict(state)


def test_what_cannot_be_read_by_ranges_is_streamed_and_says_so(www: Path, caplog: pytest.LogCaptureFixture) -> None:
    with served(www, Quiet) as url:
        with pytest.raises(
            InputError, match=r"^samples_per_epoch: is needed.*train-000000.tar': its server does not answer"
        ):
            remote_module(url, validation_shards=None).setup("fit")
        data = remote_module(url, samples_per_epoch=5)
        with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"):
            data.setup("fit")
        (said,) = [text for text in caplog.messages if text.startswith("train: ")]
        assert said.startswith("train: 3 shards, streamed from front to back: ") and "range requests" in said
        assert data.describe()["train"] == {"shards": 3}
        assert {key for batch in keys(data.train_dataloader()) for key in batch} <= {f"train{i:03d}" for i in range(5)}
    index_path(www / "train-000001.tar").unlink()
    with served(www, Ranged) as url:
        with pytest.raises(InputError, match=r"^samples_per_epoch: .*there is no index next to '.*train-000001.tar'"):
            remote_module(url, validation_shards=None).setup("fit")
        data = remote_module(url, train_shards=f"{url}/train-000000.tar", samples_per_epoch=4, stream=True)
        data.setup("fit")
        assert data.describe() == {"validation": {"shards": 1}, "train": {"shards": 1}}


def test_damage_is_found_as_in_local_shards(www: Path) -> None:
    first, second, third = sorted(www.glob("train*.tar"))
    place = {member.name: member.offset for member in read_index(first).members}
    flip(first, place["train000.flac"] + 600)
    flip(first, place["train001.flac"] - 512)  # a header: it is not needed
    second.write_bytes(second.read_bytes()[: read_index(second).members[2].offset + 10])
    third.unlink()
    with served(www, Ranged) as url:
        examples, faults = read_all(*(f"{url}/{shard.name}" for shard in (first, second, third)))
        assert set(examples) == {"train001", "train002"}
        assert faults == {"train000": "checksum differs", "train003": LOST, "train004": "shard cannot be read"}
        shutil.copy(www / "validation-000000.tar", first)
        with pytest.raises(InputError, match="is not the tar that its index describes"):
            SampleTable([f"{url}/{first.name}"])
        table = SampleTable([f"{url}/validation-000000.tar"])
        (www / "validation-000000.tar").unlink()
        fetched = IndexedShards(table, decoder(), substitute=True)[0]
        assert fetched.stop == "100 samples in a row were broken"
        assert {fault.reason for fault in fetched.faults} == {"shard cannot be read"}


class Unsteady(Ranged):
    """Is busy at first, then hangs up in the middle of an answer, then answers."""

    def do_GET(self) -> None:
        if [path for path, _ in self.asked].count(self.path) == 0:
            self.asked.append((self.path, ""))
            self.send_error(503)
        else:
            super().do_GET()

    def answer(self, data: bytes) -> None:
        times = self.asked.count(self.asked[-1])
        super().answer(data if times > 1 or len(data) < 1000 else data[: len(data) // 2])


def test_busy_servers_and_truncated_answers_lose_nothing(www: Path) -> None:
    asked: list[tuple[str, str]] = []
    with served(www, functools.partial(Unsteady, asked=asked)) as url:
        names = [shard.name for shard in sorted(www.glob("train*.tar"))]
        assert read_all(*(f"{url}/{name}" for name in names)) == read_all(*(str(www / name) for name in names))
    assert max(asked.count(one) for one in asked) == 2


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_server_that_goes_ends_the_run_and_blames_no_sample(www: Path, split: str) -> None:
    with served(www, Ranged) as url:
        data = remote_module(url)
        data.setup("fit")
        loader = data.train_dataloader() if split == "train" else data.val_dataloader()
    with pytest.raises(InputError, match=rf"^The {split}\w* data cannot be used: '{url}/.*tar' cannot be read"):
        list(loader)
    assert not data.quarantines[split].faults
    with pytest.raises(InputError, match=r"cannot be read: .* Start again when its server can be reached"):
        remote_module(url).setup("fit")
