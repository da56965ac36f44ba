"""Two machines for real: network namespaces joined by a cable, with one disk. See docs/machines.md."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from diary import lines
from machines import Machines, two_machines
from observed_edits import Edits, difference
from observed_fit import Fit, check_continued
from processes import ROOT, Command

from apa_lightning.cli import run_folder
from datamodules.encodings import encode, pieces

pytestmark = pytest.mark.slow
NAME = "Two machines"
FIT = Fit(ranks=2)
LONG = 400  # seconds; torchrun and the command import torch twice on each machine


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    try:
        with two_machines() as found:
            yield found
    except OSError as error:
        pytest.skip(f"no network namespaces: {error}")


def test_a_machine_that_dies_ends_the_other_and_both_resume(machines: Machines, tmp_path: Path, promise) -> None:
    """Started by torchrun, as a user does. In the end all is as on one machine with two processes, bit for bit."""

    def launch(fit: Fit, folder: Path, *more: object, log: str = "log.txt", environment: object = None) -> Command:
        return machines.start(fit.arguments(folder, *more), folder / log, torchrun=True)

    run = launch(FIT, tmp_path)
    assert run.wait_until(lambda: len(lines(tmp_path / "diary.jsonl")) > 8, LONG), run.output
    machines.kill(1)
    killed = time.monotonic()
    run.wait(120)
    seconds = time.monotonic() - killed
    assert "error: another process of this run has ended" in run.output, run.output[-3000:]
    different = check_continued(FIT, tmp_path, saved=False, start=launch)
    promise(NAME, not different, 1, "runs resume exactly after one has died", f"the other ends in {seconds:.0f} s")
    assert not different


def test_a_cut_cable_and_a_disk_that_is_not_shared(machines: Machines, tmp_path: Path, promise) -> None:
    """Silence ends a run after the timeout of the strategy; a machine without the checkpoint ends it at once."""
    waits = ("--trainer.strategy.class_path=lightning.pytorch.strategies.DDPStrategy",)
    waits += ("--trainer.strategy.init_args.timeout=0:00:40",)
    run = machines.start(FIT.arguments(tmp_path), tmp_path / "log.txt", strategy=waits)
    assert run.wait_until(lambda: len(lines(tmp_path / "diary.jsonl")) > 12, LONG), run.output
    machines.cable("down")
    try:
        run.wait(LONG)
    finally:
        machines.cable("up")
    cut = [process.exitcode for process in run.processes] == [2, 2] and "Traceback" not in run.output
    assert cut, run.output[-3000:]

    def elsewhere() -> None:
        def absent(folder: object) -> Path:
            raise FileNotFoundError(f"ckpt_path: 'last', but there is none below {folder}.")

        if os.environ["NODE_RANK"] == "1":
            run_folder.last_checkpoint = absent

    run = machines.start(FIT.arguments(tmp_path, "--ckpt_path=last"), tmp_path / "log-1.txt", before=elsewhere)
    assert run.wait(LONG) == 2 and "Traceback" not in run.output, run.output[-3000:]
    told = run.output.count("has a checkpoint of SHA-256") == 2 and "and process 1 on" in run.output
    promise(NAME, cut + told, 2, "a cut cable and a disk that is not shared end both with a message")
    assert told, run.output[-3000:]


@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_edits_of_two_machines_in_one_folder(command: str, machines: Machines, tmp_path: Path, promise) -> None:
    edits = Edits(command)
    run = machines.start(edits.arguments(tmp_path / "out"), tmp_path / "log.txt")
    assert run.wait(LONG) == 0, run.output[-3000:]
    different = difference(edits, tmp_path / "out")
    promise(NAME, not different, 1, "folders of edits are those of one machine, each edit made once")
    assert not different


def test_both_fill_one_cache(machines: Machines, tmp_path: Path, promise) -> None:
    diary = tmp_path / "diary"

    def noted() -> None:
        pieces.CLIPS = 2
        write = encode.write_piece

        def write_noted(path: Path, *rest: object) -> None:
            time.sleep(0.5)  # the other has its turn too
            write(path, *rest)
            with open(diary, "a") as file:
                file.write(f"{os.environ['NODE_RANK']} {path.name}\n")

        encode.write_piece = write_noted

    arguments = FIT.arguments(
        tmp_path, "--config", ROOT / "configs/data/encoded.yaml", f"--data.cache={tmp_path}/cache"
    )
    run = machines.start([*arguments, "--trainer.max_steps=2"], tmp_path / "log.txt", before=noted)
    assert run.wait(LONG) == 0, run.output[-3000:]
    made = [line.split() for line in diary.read_text().splitlines()]
    once = len({name for _, name in made}) == len(made) == len(list(tmp_path.rglob("*.safetensors"))) - 1  # the adapter
    promise(NAME, once, 1, "caches are filled by both, nothing twice")
    assert once and {machine for machine, _ in made} == {"0", "1"}
