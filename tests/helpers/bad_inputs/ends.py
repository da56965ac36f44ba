"""The end of a command: run it in this process or as two ranks, and read what it left."""

import json
import multiprocessing
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from apa_lightning.cli.main import main
from bad_inputs.room import Room

FORK = multiprocessing.get_context("fork")  # a second rank without importing everything again


@dataclass(frozen=True)
class End:
    """The exit code, everything that was said, and the files that are new or changed (empty ones aside)."""

    code: object
    said: str
    changed: set[str]

    @property
    def error(self) -> str:
        return self.said[self.said.index("error: ") :] if "error: " in self.said else ""


def run(room: Room, arguments: list[object], capfd, caplog, ranks: int = 1) -> End:
    """Run the command line in this process, or as several ranks in children."""
    before = files(room.path)
    capfd.readouterr()
    words = [str(argument) for argument in arguments]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        if ranks == 1:
            code = _main(words)
        else:
            processes = [FORK.Process(target=_rank, args=(words, rank, ranks)) for rank in range(ranks)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            (code,) = {process.exitcode for process in processes}
    output = capfd.readouterr()
    said = "\n".join([*(str(warning.message) for warning in warned), caplog.text, output.out, output.err])
    after = files(room.path)
    return End(code, said, {name for name, content in after.items() if content and before.get(name) != content})


def _main(words: list[str]) -> object:
    try:
        main(words)
    except SystemExit as end:
        return end.code
    return 0


def _rank(words: list[str], rank: int, ranks: int) -> None:
    port = 20_000 + os.getppid() % 20_000
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["WORLD_SIZE"] = str(ranks)
    sys.exit(_main(words))  # type: ignore[arg-type]


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def quarantined(room: Room) -> Iterator[dict]:
    """Lines of the reports in the run's log folder."""
    for report in (room.path / "runs" / "lightning_logs").rglob("quarantine-*.jsonl"):
        yield from map(json.loads, report.read_text().splitlines())


def delivered(room: Room) -> set[str]:
    return set((room.path / "runs" / "delivered.txt").read_text().split())
