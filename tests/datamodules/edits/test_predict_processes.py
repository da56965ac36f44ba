"""`predict` in processes that die, or work side by side."""

import csv
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from edit_tools import EDITS, IN_PAIRS, audio_bytes, command, records

from apa_lightning.cli.main import main

FORK = multiprocessing.get_context("fork")  # a second process without importing everything again


def start(model: list[str], *arguments: str, rank: int | None = None):
    """`predict` in a process of its own; with `rank`, as one of two under DDP."""
    process = FORK.Process(target=_quiet_main, args=(command(model, *arguments), rank))
    process.start()
    return process


def _quiet_main(arguments: list[str], rank: int | None) -> None:
    with open("out.txt", "w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    if rank is not None:  # as torchrun and clusters do; Lightning's own launcher would import everything anew
        port = 20_000 + os.getppid() % 20_000
        os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    main(arguments)


def wait_until(condition: Callable[[], bool], process) -> None:
    end = time.monotonic() + 60
    while not condition() and process.is_alive() and time.monotonic() < end:
        time.sleep(0.001)


def test_terminated_run_stops_after_its_batch(here, model, predict, capsys):
    process = start(model)
    wait_until(lambda: any(Path("edits/.claims").glob("*.json")), process)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 143
    done = len(records())
    assert 1 <= done < 5
    predict()
    assert f"skipped  {done}" in capsys.readouterr().out


def test_two_runs_share_one_folder(here, model, undisturbed):
    processes = [start(model, *IN_PAIRS) for _ in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert audio_bytes() == undisturbed
    assert sorted(record["id"] for record in records()) == sorted(edit for edit, _ in EDITS)


def test_parts_make_together_what_one_run_makes(here, predict, undisturbed, capsys, monkeypatch):
    """As the tasks of a job array: in any order, one of them twice, and one that is missing at first."""
    predict(*IN_PAIRS, "--part=3/3")
    out = capsys.readouterr().out
    assert "Parts that are not finished yet: 1/3, 2/3. If no task is making them: " in out and "--part 1/3" in out
    made = {record["id"] for record in records()}
    assert 0 < len(made) < len(EDITS)
    for name, value in {"ID": 10, "MIN": 10, "MAX": 14, "COUNT": 3, "STEP": 2}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    monkeypatch.setattr("sys.argv", ["apa_lightning", "predict", "--data.prompt=a b", "--data.part", "slurm"])
    predict(*IN_PAIRS, "--data.part=slurm")
    command = "python -m apa_lightning predict '--data.prompt=a b' --data.part 2/3"
    assert f"Parts that are not finished yet: 2/3. If no task is making them: {command}\n" in capsys.readouterr().out
    assert made < {record["id"] for record in records()} < {edit for edit, _ in EDITS}
    predict(*IN_PAIRS, "--part=3/3")
    predict(*IN_PAIRS, "--part=2/3")
    assert "not finished" not in capsys.readouterr().out.split("predict: summary")[-1]
    assert audio_bytes() == undisturbed and len(records()) == len(EDITS)
    with open("edits/results.csv", encoding="utf-8-sig", newline="") as file:
        assert {row["id"] for row in csv.DictReader(file)} == {edit for edit, _ in EDITS}


def test_two_ranks_make_each_edit_once(here, model, undisturbed):
    """Three batches for two ranks; then one for two, where a fixed share would leave a rank without any."""

    def run_two_ranks() -> None:
        ranks = [
            start(model, *IN_PAIRS, "--trainer.strategy=ddp", "--trainer.devices=2", rank=rank) for rank in range(2)
        ]
        for process in ranks:
            process.join()
            assert process.exitcode == 0

    run_two_ranks()
    assert audio_bytes() == undisturbed
    assert sorted(record["id"] for record in records()) == sorted(edit for edit, _ in EDITS)
    Path("edits/organ.wav").unlink()
    run_two_ranks()
    assert audio_bytes() == undisturbed
    assert len(records()) == len(EDITS) + 1
