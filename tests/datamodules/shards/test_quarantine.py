"""The report of broken samples, and when it stops a run."""

import json
from pathlib import Path

import pytest

from apa_lightning.errors import InputError
from datamodules.shards.quarantine import Quarantine, QuarantineWarning
from datamodules.shards.samples import Fault


def fault(number: int, reason: str = "unusable audio", kept: bool = False) -> Fault:
    return Fault("a.tar", f"k{number}", reason, "why", kept)


@pytest.mark.filterwarnings("ignore::datamodules.shards.quarantine.QuarantineWarning")  # pytest.warns repeats others
def test_each_fault_is_one_line_of_the_report(tmp_path: Path) -> None:
    quarantine = Quarantine("train", 0.5, tmp_path / "logs", rank=1)
    assert not (tmp_path / "logs").exists()
    with pytest.warns(QuarantineWarning, match="unusable audio: 'k0' in shard 'a.tar'. why"):
        quarantine.note([fault(0), fault(1), fault(0), fault(2, "digital silence", kept=True)], 10)
    lines = [json.loads(line) for line in (tmp_path / "logs" / "quarantine-train-rank1.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "split": "train", "shard": "a.tar", "key": "k0", "reason": "unusable audio", "detail": "why", "kept": False,
    }  # fmt: skip
    assert [line["key"] for line in lines] == ["k0", "k1", "k2"]
    with pytest.warns(QuarantineWarning):
        Quarantine("train", 0.5, tmp_path / "logs", rank=1).note(
            [fault(0), fault(3)], 10
        )  # a second run adds what is new
    assert len((tmp_path / "logs" / "quarantine-train-rank1.jsonl").read_text().splitlines()) == 4
    with pytest.warns(QuarantineWarning) as caught:
        quarantine.finish_epoch()
    assert "3 of 10 train samples were skipped: 3 x unusable audio" in str(caught[0].message)
    assert "1 of 10 train samples were delivered with a remark" in str(caught[1].message)


@pytest.mark.filterwarnings("ignore::datamodules.shards.quarantine.QuarantineWarning")
def test_too_many_broken_samples_stop_the_run() -> None:
    quarantine = Quarantine("train", 0.1)
    quarantine.note([fault(i) for i in range(20)], 40)  # too few to judge
    with pytest.raises(
        InputError, match=r"too many broken train samples: 20 of the 60 .*max_broken_share.*20 x unusable audio.*'k0'"
    ):
        quarantine.note([], 20)
    short = Quarantine("train", 0.1)
    short.note([fault(0)], 5)
    with pytest.raises(InputError, match="1 of the 5"):
        short.finish_epoch()
    silent = Quarantine("train", 0.0)
    silent.note([fault(i, "digital silence", kept=True) for i in range(99)], 99)
    silent.finish_epoch()
    located = Quarantine("train", 0.1)
    located.located([fault(0)], 9)
    located.note([], 99)
    with pytest.raises(InputError, match="1 of 9"):
        Quarantine("train", 0.1).located([fault(0)], 8)
    with pytest.raises(InputError, match="no sample at all"):
        Quarantine("train", 1.0).located([], 0)
