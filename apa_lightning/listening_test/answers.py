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
    """The answers of one listener.

    Attributes:
        file: File that the listener sent back.
        listener: Random name of the listener.
        saved: Time of the last answer, ISO 8601 in UTC.
        ratings: Ratings by item token and question.
    """

    file: Path
    listener: str
    saved: str
    ratings: dict[str, dict[str, int]]


def answer_files(paths: Iterable[Path]) -> list[Path]:
    """The files among ``paths``, and the files ``*.json`` of the folders among them.

    Raises:
        InputError: If a path does not exist, or if there is no file.
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
        InputError: If the file does not hold answers to this test; the message gives the reason without the file's name.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        raise InputError(
            "is not JSON; it may have been cut off or changed in an editor. Ask the listener to send it again."
        ) from None
    if not isinstance(content, dict) or not {"build", "listener", "saved", "ratings"} <= content.keys():
        raise InputError("is not an answers file of a listening test.")
    if content["build"] != key.build:
        raise InputError(
            f"belongs to test {content['build']!r}, the key to {key.build!r}; give the {KEY_FILE} of that test."
        )
    ratings = content["ratings"]
    if not isinstance(ratings, dict):
        raise InputError("has no ratings by item.")
    for token, rated in ratings.items():
        if token not in key.items:
            raise InputError(f"rates {token!r}, which is not in this test.")
        if not isinstance(rated, dict) or any(not _valid(name, value) for name, value in rated.items()):
            raise InputError(f"has ratings of {token!r} other than 1 to {POINTS} for {', '.join(NAMES)}: {rated!r}.")
    return Answers(file, str(content["listener"]), str(content["saved"]), ratings)


def _valid(name: str, value: Any) -> bool:
    return name in NAMES and type(value) is int and 1 <= value <= POINTS


def newest(answers: Iterable[Answers]) -> list[Answers]:
    """The file of each listener that was saved last."""
    return list({one.listener: one for one in sorted(answers, key=lambda one: one.saved)}.values())
