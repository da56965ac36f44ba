"""The files that listeners send back."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apa_lightning.errors import InputError
from apa_lightning.listening_test.key import KEY_FILE, Key
from apa_lightning.listening_test.questions import POINTS, QUESTIONS

NAMES = [question.name for question in QUESTIONS]


@dataclass(frozen=True)
class Answers:
    """What one listener had answered when the file was saved: ratings by item token and question."""

    file: Path
    listener: str
    saved: str
    ratings: dict[str, dict[str, int]]


def answer_files(paths: Iterable[Path]) -> list[Path]:
    """The files among ``paths``, and those named ``*.json`` in its folders.

    Raises:
        InputError: a path does not exist, or there is no file at all.
    """
    paths = list(paths)
    if missing := [str(path) for path in paths if not path.exists()]:
        raise InputError(f"answers: {', '.join(missing)} does not exist.")
    found = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    found = [file for file in dict.fromkeys(found) if file.name != KEY_FILE]
    if not found:
        raise InputError(
            f"answers: no *.json in {', '.join(map(str, paths)) or 'nothing'}; give the files that listeners sent back."
        )
    return found


def read_answers(file: Path, key: Key) -> Answers:
    """Read and check one file.

    Raises:
        InputError: it is no answers file of this build; the message says why, without the file's name.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        raise InputError("is no JSON; was it cut off or opened in an editor? Ask for it again.") from None
    if not isinstance(content, dict) or not {"build", "listener", "saved", "ratings"} <= content.keys():
        raise InputError("is no answers file of a listening test.")
    if content["build"] != key.build:
        raise InputError(
            f"is of build {content['build']!r}, and the key of {key.build!r}; give that test's {KEY_FILE}."
        )
    ratings = content["ratings"]
    if not isinstance(ratings, dict):
        raise InputError("has no ratings by item.")
    for token, rated in ratings.items():
        if token not in key.items:
            raise InputError(f"rates {token!r}, which this test does not have.")
        if not isinstance(rated, dict) or any(not _valid(name, value) for name, value in rated.items()):
            raise InputError(f"has ratings of {token!r} that are not 1 to {POINTS} for {', '.join(NAMES)}: {rated!r}.")
    return Answers(file, str(content["listener"]), str(content["saved"]), ratings)


def _valid(name: str, value: Any) -> bool:
    return name in NAMES and type(value) is int and 1 <= value <= POINTS


def newest(answers: Iterable[Answers]) -> list[Answers]:
    """One file per listener: the one saved last."""
    found: dict[str, Answers] = {}
    for one in sorted(answers, key=lambda one: one.saved):  # ISO 8601 in UTC sorts as text
        found[one.listener] = one
    return list(found.values())
