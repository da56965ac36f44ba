"""Bad input: every line of BAD_INPUTS.md from the command line and from Python, and how long and how much it takes to say so.

The command line's table is that of `tests/helpers/bad_inputs`; here every command is a process of its own, so that its time
and memory can be taken from outside. Both are of the whole command, from the fork to its end: reading settings and the
frozen parts is in them. The same kind of command on good input, one step or one edit long, is the scale: a refusal may take
2 s and 256 MB more than that, and most take less than it. Memory is the peak of the process, or of a worker of its own,
above what it had when it was forked.
"""

import contextlib
import dataclasses
import os
import resource
import sys
import time
from multiprocessing import util
from pathlib import Path

import pytest
from bad_inputs.cases import Case, check, indexed, one_edit
from bad_inputs.ends import End, files
from bad_inputs.room import ROOT, Room
from bad_inputs.shards import two_ranks
from bad_inputs.table import CASES
from fit_tools import WINDOW
from processes import Command
from python_cases import CASES as CALLS
from python_cases import Bad
from random_folders import tiny_parts

from apa_lightning import AudioEditor
from apa_lightning.errors import InputError

NAME = "Bad input"
SECONDS, MEGABYTES = 2.0, 256.0
FAST = {
    "2-short_wav-predict", "4-huge_flac-predict", "9-three_hours-predict", "11-random-fit", "18-all_at_once-predict",
    "22-torch_payload_ckpt-fit", "22-other_widths-fit", "24-backbone-predict",
}  # fmt: skip


@dataclasses.dataclass
class Spent:
    """What commands took: by name, seconds and megabytes."""

    good: dict[tuple[str, int], tuple[float, float]] = dataclasses.field(default_factory=dict)
    refused: dict[str, tuple[float, float, float, float]] = dataclasses.field(default_factory=dict)
    """Of the whole command, and beyond a good one."""


@pytest.fixture(scope="module")
def spent() -> Spent:
    return Spent()


@pytest.fixture(scope="module")
def together() -> dict[str, tuple[Room, End]]:
    """The room and end of the one run of all cases with members, once it was."""
    return {}


@pytest.fixture(scope="module")
def editor() -> AudioEditor:
    return AudioEditor.from_pretrained(**tiny_parts(WINDOW))


@pytest.fixture(scope="module")
def seconds_to_load(editor: AudioEditor) -> float:
    """What a good ``from_pretrained`` takes."""
    start = time.process_time()
    AudioEditor.from_pretrained(**tiny_parts(WINDOW))
    return time.process_time() - start


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["apa_lightning"])
    (tmp_path / "room").mkdir()
    with contextlib.ExitStack() as stack:
        yield Room(tmp_path / "room", monkeypatch, stack)


def note_memory(path: Path) -> None:
    """In the command's process: at its end, write how many kilobytes it and its workers had at most above now."""
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

    def note() -> None:
        most = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        path.write_text(str(most - before))

    util.Finalize(None, note, exitpriority=0)


def run(room: Room, arguments: list[object], ranks: int = 1) -> tuple[End, float, float]:
    """How a command ended, the processor seconds of all of it (machines are shared), and its megabytes."""
    before = files(room.path)
    memory, log = room.path.parent / "memory.txt", room.path.parent / "log.txt"
    start = os.times()
    command = Command(arguments, log, ranks, before=lambda: note_memory(memory))
    code, end = command.wait(), os.times()
    seconds = end.children_user + end.children_system - start.children_user - start.children_system
    changed = {name for name, content in files(room.path).items() if content and before.get(name) != content}
    return End(code, command.output, changed), seconds, int(memory.read_text()) / 1024


def good(room: Room, kind: str, ranks: int, spent: Spent) -> tuple[float, float]:
    """What the same kind of command takes on good input, to its end: one step, or one edit."""
    if kind not in ("fit", "validate", "predict"):
        kind = "predict"  # sizes, shards, adapter: they have no Trainer, and no scale of their own
    if (kind, ranks) not in spent.good:
        place = dataclasses.replace(room, path=room.path.parent / f"good-{kind}-{ranks}", keys=set())
        place.path.mkdir()
        if ranks > 1:
            arguments = two_ranks(place)
        elif kind == "predict":
            arguments = one_edit(place)
        else:
            shard = indexed(place)
            arguments = place.fit(shard=shard) if kind == "fit" else place.validate(shard=shard)
        end, seconds, megabytes = run(place, arguments, ranks)
        assert end.code == 0, end.said
        spent.good[kind, ranks] = seconds, megabytes
    return spent.good[kind, ranks]


def test_the_table_is_whole() -> None:
    assert {case.number for case in CASES} == set(range(1, 25))
    assert {str(case) for case in CASES} >= FAST
    assert len({str(case) for case in CALLS}) == len(CALLS) >= 30
    assert {case.number for case in CALLS} == set(range(1, 25)) - {10, 13, 14, 15}


@pytest.mark.parametrize(
    "case", [c if str(c) in FAST else pytest.param(c, marks=pytest.mark.slow) for c in CASES], ids=str
)
def test_a_command(case: Case, room: Room, spent: Spent, together: dict, promise) -> None:
    if case.members is not None and together:
        room, end = together["run"]
    else:
        arguments = case.prepare(room)
        scale = good(room, str(arguments[0]), case.ranks, spent)
        end, seconds, megabytes = run(room, arguments, case.ranks)
        if case.members is not None:
            together["run"] = room, end
        if case.outcome == "refused":
            spent.refused[str(case)] = (seconds, megabytes, seconds - scale[0], megabytes - scale[1])
    ok = end.code == (2 if case.outcome == "refused" else 0) and "Traceback" not in end.said
    try:
        assert ok, end.said
        check(case, room, end)
    except AssertionError:
        ok = False
        raise
    finally:
        promise(NAME, ok, 1, "cases of the command line")


def test_refusals_are_quick_and_small(spent: Spent, promise) -> None:
    """The last of the commands: all of them are in."""
    if not spent.refused:
        pytest.skip("no command was run")
    slow = {name: took[2] for name, took in spent.refused.items() if took[2] >= SECONDS}
    large = {name: took[3] for name, took in spent.refused.items() if took[3] >= MEGABYTES}

    def worst(column: int) -> str:
        name, took = max(spent.refused.items(), key=lambda item: item[1][column])
        return f"{took[column]:.1f} ({name})"

    measured = (
        f"worst whole command {worst(0)} s, {worst(1)} MB; beyond a good one {worst(2)} s, {worst(3)} MB; "
        f"good ones: {', '.join(f'{k} {r} rank {s:.1f} s {m:.0f} MB' for (k, r), (s, m) in spent.good.items())}"
    )
    count = len(spent.refused)
    promise(NAME, count - len(slow.keys() | large.keys()), count, "refusals within 2 s and 256 MB", measured)
    assert not slow and not large


@pytest.mark.parametrize("number", range(1, 25))
def test_calls_of_python(
    number: int, tmp_path: Path, monkeypatch, editor: AudioEditor, seconds_to_load: float, promise
) -> None:
    """Each raises its typed error with the field or file and the way out, at once."""
    calls = [call for call in CALLS if call.number == number]
    if not calls:
        pytest.skip("shards and formats: what is wrong there is quarantined, or works")
    missed: list[str] = []
    for place, call in enumerate(calls):
        with contextlib.ExitStack() as stack:
            room = Room(tmp_path / str(place), monkeypatch, stack)
            room.path.mkdir()
            if wrong := complaint(call, room, editor, seconds_to_load):
                missed.append(f"{call}: {wrong}")
    promise(NAME, len(calls) - len(missed), len(calls), "calls from Python")
    assert not missed, "\n".join(missed)


def complaint(call: Bad, room: Room, editor: AudioEditor, scale: float) -> str:
    """What is wrong with how a call is refused; "" if nothing is. It may take 2 s beyond the ``scale``."""
    start = time.process_time()
    try:
        call.call(room, editor)
    except (InputError, FileNotFoundError) as error:
        if (room.path / "canary").exists():
            return "the payload ran"
        if missing := [word for word in call.words if word.lower() not in str(error).lower()]:
            return f"lacks {missing}: {error}"
        took = time.process_time() - start
        return "" if took < SECONDS + scale else f"took {took:.1f} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "is not refused"
