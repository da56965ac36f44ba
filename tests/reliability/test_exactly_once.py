"""Exactly-once edits: predict and evaluate, ended anywhere and started again, give what a run gives that was left alone; so do
the commands that make shards.

Started again means: by one process, by two under DDP, or by two commands at once on the one folder. All bytes are compared,
but for the times in results.jsonl and its table (``observed_edits.TIMED``).
"""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from diary import in_a_write, on_event
from observed_edits import THREADS, Edits, difference, in_a_line, in_mending, undisturbed, written
from observed_shards import Arguments, render, shards
from processes import Command

NAME = "Exactly-once edits"
WHAT = "kill points"
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
PREDICT, EVALUATE, SWEEP = Edits("predict"), Edits("evaluate"), Edits("sweep")
AGAIN = ("one process", "two ranks", "two at once")


@dataclass(frozen=True)
class Ending:
    """Where a run ends.

    Attributes:
        inside: called in the process before the command; it kills itself at some moment.
        seen: or what is waited for from outside, in the output folder, before the signal ``how``.
        twice: also the run after it is ended: what is called in that.
    """

    inside: Callable[[], object] = lambda: None
    seen: Callable[[Path], object] | None = None
    how: int = KILL
    twice: Callable[[], object] | None = None


def at(event: str, ending: str, count: int = 1) -> Ending:
    return Ending(partial(on_event, event, ending, count, KILL))


def write(ending: str, count: int, size: int) -> Ending:
    return Ending(partial(in_a_write, ending, count, size))


def files(pattern: str, count: int = 1) -> Callable[[Path], bool]:
    return lambda out: len(list(out.rglob(pattern))) >= count


NAMED: dict[Edits, dict[str, Ending]] = {
    PREDICT: {
        "a claim is taken": at("open", ".tmp.json"),
        "half a note of what is made": write(".tmp.json", 2, 5),
        "the note is not renamed": at("os.rename", ".json", 2),
        "the first file is begun": at("open", ".tmp.wav"),
        "half a file": write(".tmp.wav", 3, 5_000),
        "a file is not renamed": at("os.rename", "cello.wav"),
        "a file is there, its line is not begun": at("open", "/cello.wav"),
        "half a line": Ending(partial(in_a_line, 3)),
        "half the first line": Ending(partial(in_a_line, 1)),
        "half a line, and again where it is mended": Ending(partial(in_a_line, 4), twice=in_mending),
        "the note is not removed": at("os.remove", ".json", 2),
        "the claim is not given back": at("os.remove", ".lock", 2),
        "before the table": at("open", ".tmp.csv"),
        "half the table": write(".tmp.csv", 1, 300),
        "the table is not renamed": at("os.rename", "results.csv"),
        "asked to stop with the first claim": Ending(seen=files(".claims/*.json"), how=TERM),
        "interrupted with the second file": Ending(seen=files("*.wav", 2), how=INT),
    },
    EVALUATE: {
        "half a file": write(".tmp.wav", 2, 5_000),
        "half a line": Ending(partial(in_a_line, 4)),
        "the table of edits is not renamed": at("os.rename", "edits.csv"),
        "while it measures": Ending(seen=files("measures/*.npz", 2)),
        "half a measure": write(".tmp.npz", 2, 400),
        "a measure is not renamed": at("os.rename", ".npz", 3),
        "asked to stop while it measures": Ending(seen=files("measures/*.npz", 1), how=TERM),
        "interrupted while it measures": Ending(seen=files("measures/*.npz", 1), how=INT),
        "half of set_metrics.json": write(".tmp.json", 4, 200),
        "results.csv half written": write(".tmp.csv", 2, 300),
        "results.csv is not renamed": at("os.rename", "results.csv"),
        "before the tables": at("open", ".tmp.md"),
        "a plot is not renamed": at("os.rename", ".png"),
        "half a plot": write(".tmp.png", 2, 5_000),
        "half the page": write(".tmp.html", 1, 20_000),
        "the page is not renamed": at("os.rename", "report.html"),
    },
    SWEEP: {"the operating point is not renamed": at("os.rename", "operating_point_timbre.yaml")},
}
POINTS = [(edits, name) for edits, endings in NAMED.items() for name in endings]
FAST = {(PREDICT, "half a line")}


def start_again(edits: Edits, folder: Path, how: str) -> str:
    """Start a command again in one of the ways of :data:`AGAIN`; what is wrong with how it ends."""
    if how == "two ranks":
        runs = [edits.start(folder, ranks=2, log="again.txt")]
    else:
        runs = [edits.start(folder, log=f"again-{n}.txt") for n in range(1 + (how == "two at once"))]
    codes = [run.wait() for run in runs]
    return "" if not any(codes) else f"{how} ended with {codes}: {[run.output[-2000:] for run in runs]}"


def check(edits: Edits, folder: Path, how: str) -> str:
    """Start again what was ended: what differs from a run that was left alone; a third start makes nothing."""
    if problem := start_again(edits, folder, how) or difference(edits, folder / "out"):
        return problem
    before = written(folder / "out")
    if problem := start_again(edits, folder, "one process") or difference(edits, folder / "out"):
        return f"third start: {problem}"
    again = {name for name, moment in written(folder / "out").items() if moment != before[name]}
    return f"the third start wrote {sorted(again)}" if again else ""


@pytest.mark.parametrize(
    ("edits", "name", "how"),
    [
        pytest.param(
            edits, name, AGAIN[number % len(AGAIN)], id=f"{edits.command}-{name}",
            marks=() if (edits, name) in FAST else pytest.mark.slow,
        )
        for number, (edits, name) in enumerate(POINTS)
    ],
)  # fmt: skip
def test_ended_at_a_named_moment(edits: Edits, name: str, how: str, tmp_path: Path, promise) -> None:
    ending = NAMED[edits][name]
    undisturbed(edits)
    run = edits.start(tmp_path, before=ending.inside)
    if ending.seen is not None:
        assert run.wait_until(lambda: ending.seen(tmp_path / "out")), run.output
        run.kill(ending.how)
    ended = run.wait()
    if ending.twice is not None:
        ended = ended and edits.start(tmp_path, before=ending.twice).wait()
    problem = check(edits, tmp_path, how) if ended else f"it was not ended: {run.output}"
    promise(NAME, not problem, 1, WHAT)
    assert not problem


@pytest.mark.parametrize("edits", [PREDICT, pytest.param(EVALUATE, marks=pytest.mark.slow)], ids=lambda e: e.command)
@pytest.mark.parametrize("number", [pytest.param(n, marks=pytest.mark.slow if n else ()) for n in range(16)])
def test_ended_at_a_random_moment(edits: Edits, number: int, tmp_path: Path, promise) -> None:
    """Moments from the first tenth of a second to the last, by kill -9 mostly, of one process or two ranks."""
    draw = random.Random(f"{edits.command} {number}")
    how, again, ranks = draw.choice([KILL, KILL, TERM, INT]), draw.choice(AGAIN), draw.choice([1, 1, 2])
    _, seconds = undisturbed(edits, ranks)
    run = edits.start(tmp_path, ranks)
    time.sleep(draw.uniform(0.1, 1.0) * seconds)
    run.kill(how)
    code = run.wait()
    problem = check(edits, tmp_path, again)
    promise(NAME, not problem, 1, WHAT)
    assert not problem, f"{how!r} to {ranks} processes ended with {code}"


SHARDS: dict[str, Ending] = {
    "half a shard": write(".tmp.tar", 2, 20_000),
    "a shard is not renamed": at("os.rename", "000001.tar"),
    "a shard has no index": at("os.rename", "000001.index.json"),
    "half an index": write(".tmp.json", 2, 100),
    "asked to stop with the first shard": Ending(seen=files("*0.tar"), how=TERM),
    "interrupted with the first shard": Ending(seen=files("*0.tar"), how=INT),
}
FAST_SHARDS = (shards, "a shard has no index")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        pytest.param(
            command, name, id=f"{command.__name__}-{name}",
            marks=() if (command, name) == FAST_SHARDS else pytest.mark.slow,
        )
        for command in (shards, render)
        for name in SHARDS
    ],
)  # fmt: skip
def test_shards_are_the_same_bytes(command: Callable[[Path], Arguments], name: str, tmp_path: Path, promise) -> None:
    """Continued after a kill. (That its worker processes end with it, shows in that the command ends at all here.)"""
    ending = SHARDS[name]

    def run(folder: str, before: Callable[[], object] = lambda: None) -> Command:
        return Command(command(tmp_path / folder), tmp_path / "log.txt", environment=THREADS, before=before)

    alone = run("alone")
    assert alone.wait() == 0, alone.output
    ended = run("out", ending.inside)
    if ending.seen is not None:
        ended.wait_until(lambda: ending.seen(tmp_path / "out"))
        ended.kill(ending.how)
    assert ended.wait() or ending.seen is not None, ended.output
    again = run("out")
    code = again.wait()
    whole, found = ({p.name: p.read_bytes() for p in (tmp_path / f).iterdir()} for f in ("alone", "out"))
    promise(NAME, code == 0 and found == whole, 1, "shards continued")
    assert code == 0, again.output
    assert found.keys() == whole.keys() and [n for n in found if found[n] != whole[n]] == []
