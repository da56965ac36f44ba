"""Two machines for real: network namespaces joined by a cable, with one disk. See docs/machines.md."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from diary import lines
from machines import Machines, two_machines
from observed_edits import Edits, difference
from observed_fit import Fit, check_continued
from processes import Command

FIT = Fit(ranks=2)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    try:
        with two_machines() as found:
            yield found
    except OSError as error:
        pytest.skip(f"no network namespaces: {error}")


@pytest.mark.slow
def test_a_machine_that_dies_ends_the_other_and_both_resume(machines: Machines, tmp_path: Path, promise) -> None:
    """Started by torchrun, as a user does. In the end all is as on one machine with two processes, bit for bit."""
    start = time.monotonic()

    def launch(fit: Fit, folder: Path, *more: object, log: str = "log.txt", environment: object = None) -> Command:
        return machines.start(fit.arguments(folder, *more), folder / log, torchrun=True)

    run = launch(FIT, tmp_path)
    assert run.wait_until(lambda: len(lines(tmp_path / "diary.jsonl")) > 8), run.output
    machines.kill(1)
    killed = time.monotonic()
    run.wait(60)
    seconds = time.monotonic() - killed
    assert "error: another process of this run has ended" in run.output, run.output[-3000:]
    difference = check_continued(FIT, tmp_path, saved=False, start=launch)
    print(f"{seconds:.0f} s, in all {time.monotonic() - start:.0f} s")
    promise(
        "Two machines",
        not difference,
        1,
        "runs resume exactly after one has died",
        f"the other ends in {seconds:.0f} s",
    )
    assert not difference


@pytest.mark.slow
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_edits_of_two_machines_in_one_folder(command: str, machines: Machines, tmp_path: Path, promise) -> None:
    edits = Edits(command)
    run = machines.start(edits.arguments(tmp_path / "out"), tmp_path / "log.txt")
    assert run.wait() == 0, run.output[-3000:]
    different = difference(edits, tmp_path / "out")
    promise("Two machines", not different, 1, "output folders are those of one machine")
    assert not different
