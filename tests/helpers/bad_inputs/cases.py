"""The cases, the check of how each ends, and edits and shards that several areas prepare."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from shard_tools import write_shards

from bad_inputs.ends import End, delivered, quarantined
from bad_inputs.room import GOOD, Room
from datamodules.shards.index import read_index


@dataclass(frozen=True)
class Case:
    """One bad input and one command that meets it.

    `refused`: exit code 2 and one message with the words; no file is new or changed but those in `leaves`.
    `skipped`: exit code 0; the report names the culprits, a warning says the words, and all other clips were delivered.
    `works`: exit code 0, and the words are said.
    """

    number: int
    name: str
    outcome: Literal["refused", "skipped", "works"]
    words: tuple[str, ...]
    prepare: Callable[[Room], list[object]]
    culprits: tuple[str, ...] = ("culprit",)
    leaves: tuple[str, ...] = ()
    check: Callable[[Room], object] = lambda room: None
    ranks: int = 1
    members: Callable[[Room], list] | None = None
    """Of a shard: all cases that have some stand in one shard and share one run, to save time."""

    def __str__(self) -> str:
        return f"{self.number}-{self.name}"


def refused(number: int, name: str, words: str, prepare: Callable[[Room], list[object]], **more) -> Case:
    return Case(number, name, "refused", tuple(words.split("|")), prepare, **more)


def skipped(number: int, name: str, words: str, prepare: Callable[[Room], list[object]], **more) -> Case:
    return Case(number, name, "skipped", tuple(words.split("|")), prepare, **more)


def works(number: int, name: str, words: str, prepare: Callable[[Room], list[object]], **more) -> Case:
    return Case(number, name, "works", tuple(filter(None, words.split("|"))), prepare, **more)


def one_edit(room: Room, *more: object) -> list[object]:
    room.recording()
    return room.folder(*more)


def indexed(room: Room, damage: Callable[[Path], object] = lambda path: None, samples: int = GOOD) -> Path:
    """A shard with an index, damaged after it was written."""
    (path,) = write_shards(room.path / "shards", samples, samples)
    room.keys |= {member.key for member in read_index(path).members}
    damage(path)
    return path


def all_delivered(room: Room) -> None:
    assert delivered(room) == room.keys
    assert not [line for line in quarantined(room) if not line["kept"]]


def check(case: Case, room: Room, end: End) -> None:
    """A case ended as its table says, and no payload ran."""
    assert end.code == (2 if case.outcome == "refused" else 0), end.said
    assert "Traceback" not in end.said
    assert not (room.path / "canary").exists()
    {"refused": check_refused, "skipped": check_skipped, "works": check_works}[case.outcome](case, room, end)
    case.check(room)


def check_refused(case: Case, room: Room, end: End) -> None:
    assert end.error.count("error: ") == case.ranks, end.said
    assert len(end.error) < 2000
    assert not missing(case.words, end.error), end.error
    weights = (".ckpt", ".safetensors")
    notes = {n for n in end.changed if n.startswith(("runs/", "edits/.claims/")) and not n.endswith(weights)}
    assert not end.changed - notes - set(case.leaves), "nothing is made, and what was there is as it was"


def check_skipped(case: Case, room: Room, end: End) -> None:
    lines = [line for line in quarantined(room) if not line["kept"]]
    named = {line["key"] for line in lines}
    assert named >= set(case.culprits)
    assert not missing(case.words, json.dumps([line for line in lines if line["key"] in case.culprits]))
    assert delivered(room) == room.keys - named
    assert all(line["reason"] in end.said for line in lines), "a warning gives each reason"
    check_works(replace(case, words=()), room, end)


def check_works(case: Case, room: Room, end: End) -> None:
    assert "error: " not in end.said
    assert not missing(case.words, end.said), end.said


def missing(words: tuple[str, ...], text: str) -> list[str]:
    return [word for word in words if word.lower() not in text.lower()]
