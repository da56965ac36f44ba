"""``listening-test build``: an evaluation's edits as one self-contained page for listeners."""

import csv
import io
import json
import os
import random
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from apa_lightning.errors import InputError
from apa_lightning.listening_test.attention import RULE
from apa_lightning.listening_test.key import HIDDEN_SOURCE, KEY_FILE, Item, Key
from apa_lightning.listening_test.questions import POINTS, QUESTIONS

COLUMNS = ("id", "task", "system", "source", "prompt", "audio", "output")
#: They edit nothing; the hidden copy of the source stands for them.
NOT_EDITING = ("no_op", "codec")
LONGEST_S = 120
NAMED = 10

#: The edits of one task: rows of results.csv by id and system.
Edits = dict[str, dict[str, dict[str, str]]]
Clip = tuple[np.ndarray, int]


def build(evaluation: Path, out: Path, systems: list[str] | None = None, sets_per_task: int = 5, seed: int = 0) -> None:
    """Make a blind listening test from an evaluation's audio.

    ``OUT/page`` is what listeners get: one page with its audio, which needs no server. ``OUT/key.json`` says which system
    is behind which player and stays with you. A set is one source, its text and the edits of all systems, plus a hidden copy
    of the source; in the first set of each task one edit comes twice. ``listening-test score`` rejects listeners by these.

    Args:
        evaluation: the output folder of ``evaluate``.
        out: a new folder.
        systems: those to compare, at least two; by default all of the evaluation but no_op, codec and a sweep's points.
        sets_per_task: how many sets of each task a listener hears.
        seed: of the choice of sets and repeated edits.
    """
    if sets_per_task < 1:
        raise InputError(f"sets_per_task: {sets_per_task} is too few; give 1 or more.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out: {out} exists already and is not empty; give a new folder.")
    tasks = read_edits(evaluation)
    systems = _chosen_systems(tasks, systems, evaluation)
    folder = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)  # of a build that was killed
    try:
        test = _Test(folder / "page", systems, random.Random(seed))
        for task, edits in tasks.items():
            test.add_task(task, edits, evaluation, sets_per_task)
        for line in _shortened(test.left_out):
            print(f"left out: {line}")
        if not test.sets:
            raise InputError(
                f"evaluation: {evaluation} has no set with playable audio of all of {', '.join(systems)}; "
                "name the systems that have by --systems."
            )
        test.save(folder)
        os.replace(folder, out)
    except OSError as error:
        if not error.filename or folder in Path(error.filename).parents:
            error.filename = str(out)  # a full disk names no file, and nobody knows the temporary ones
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counts = Counter(item["task"] for item in test.sets)
    print(
        f"{len(test.sets)} sets ({', '.join(f'{task} {count}' for task, count in counts.items())}) with {len(test.items)} "
        f"clips to rate, {test.seconds / 60:.0f} min of audio, of the systems {', '.join(systems)}.\n"
        f"Send {out / 'page'} to listeners; they open index.html. Keep {out / KEY_FILE}: it says which system is which.\n"
        f"Put the files they send back into {out / 'answers'} and run: listening-test score --answers {out / 'answers'}"
    )


def read_edits(evaluation: Path) -> dict[str, Edits]:
    """The rows of ``evaluation/results.csv`` by task, id and system.

    Raises:
        InputError: the file is missing, is no CSV, lacks a column or has no rows.
    """
    path = evaluation / "results.csv"
    if not path.is_file():
        raise InputError(f"evaluation: {evaluation} holds no results.csv; give the output folder of `evaluate`.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"evaluation: {path} is no CSV file in UTF-8: {error}.") from None
    if missing:
        raise InputError(f"evaluation: {path} lacks the columns {', '.join(missing)}; is it of `evaluate`?")
    tasks: dict[str, Edits] = {}
    for row in rows:
        cells = {column: row[column] or "" for column in COLUMNS}
        tasks.setdefault(cells["task"], {}).setdefault(cells["id"], {})[cells["system"]] = cells
    if not tasks:
        raise InputError(f"evaluation: {path} has no rows.")
    return tasks


def _chosen_systems(tasks: dict[str, Edits], asked: list[str] | None, evaluation: Path) -> list[str]:
    present = list(dict.fromkeys(name for edits in tasks.values() for rows in edits.values() for name in rows))
    if asked is None:
        systems = [name for name in present if name not in NOT_EDITING and "=" not in name]
    else:
        systems = list(dict.fromkeys(asked))
    if unknown := [name for name in systems if name not in present]:
        raise InputError(f"systems: {', '.join(unknown)} is not in {evaluation}; it has {', '.join(present)}.")
    if len(systems) < 2:
        raise InputError(
            f"systems: a comparison needs at least two, this is {', '.join(systems) or 'none'}; "
            f"{evaluation} has {', '.join(present)}."
        )
    return systems


class _Test:
    """The growing test: the page's sets, the key's items, the audio already written."""

    def __init__(self, page: Path, systems: list[str], random_state: random.Random) -> None:
        self.page, self.systems, self.random = page, systems, random_state
        self.sets: list[dict[str, Any]] = []
        self.items: dict[str, Item] = {}
        self.left_out: list[str] = []
        self.seconds = 0.0
        (page / "audio").mkdir(parents=True)

    def add_task(self, task: str, edits: Edits, evaluation: Path, count: int) -> None:
        """Add ``count`` sets of a task, of as many sources as there are, and note those that cannot be used."""
        found = 0
        for rows in _spread(list(edits.values()), self.random):
            name = next(iter(rows.values()))["id"]
            if lacking := [system for system in self.systems if system not in rows]:
                self.left_out.append(f"{task} {name}: no edit of {', '.join(lacking)}")
            elif found < count:
                try:
                    clips = {system: _read_clip(evaluation / rows[system]["output"]) for system in self.systems}
                    clips[HIDDEN_SOURCE] = _read_clip(evaluation / rows[self.systems[0]]["audio"])
                except InputError as error:
                    self.left_out.append(f"{task} {name}: {error}")
                else:
                    self._add_set(rows[self.systems[0]], clips, repeat=not found)
                    found += 1
        if found < count:
            self.left_out.append(f"{task}: only {found} of the {count} sets asked for")

    def _add_set(self, row: dict[str, str], clips: dict[str, Clip], repeat: bool) -> None:
        items = [
            Item(row["task"], row["id"], row["source"], system, "source" if system == HIDDEN_SOURCE else "")
            for system in clips
        ]
        if repeat:
            items.append(self.random.choice(items[:-1])._replace(control="repeat"))
        tokens = {self._write(clips[item.system]): item for item in items}
        self.items |= tokens
        self.sets.append(
            {
                "token": secrets.token_hex(8),
                "task": row["task"],
                "text": row["prompt"],
                "source": self._write(clips[HIDDEN_SOURCE]),
                "items": sorted(tokens),
            }
        )

    def _write(self, clip: Clip) -> str:
        """Write a clip anew, so that neither its name nor its metadata tell where it is from; its token."""
        token = secrets.token_hex(8)
        encoded = io.BytesIO()  # soundfile reports a full disk as "System error"; writing bytes says what it is
        soundfile.write(encoded, *clip, format="WAV", subtype="PCM_16")
        (self.page / "audio" / f"{token}.wav").write_bytes(encoded.getbuffer())
        self.seconds += len(clip[0]) / clip[1]
        return token

    def save(self, folder: Path) -> None:
        build = secrets.token_hex(6)
        data = {
            "build": build,
            "points": POINTS,
            "questions": [question._asdict() for question in QUESTIONS],
            "sets": sorted(self.sets, key=lambda one: one["token"]),
        }
        (self.page / "index.html").write_text(_page(data), encoding="utf-8")
        (folder / "answers").mkdir()
        (folder / "README.txt").write_text(_readme(build), encoding="utf-8")
        Key(build, self.systems, self.items).save(folder / KEY_FILE)


def _spread(edits: list[dict[str, dict[str, str]]], random_state: random.Random) -> Iterable[dict[str, dict[str, str]]]:
    """In random order, but every source once before any comes again."""
    random_state.shuffle(edits)
    seen: Counter[str] = Counter()
    rounds = []
    for rows in edits:
        source = next(iter(rows.values()))["source"]
        rounds.append(seen[source])
        seen[source] += 1
    return [edits[i] for i in sorted(range(len(edits)), key=rounds.__getitem__)]


def _read_clip(path: Path) -> Clip:
    """Samples of shape (S, channels) and their rate.

    Raises:
        InputError: the file is missing, or nothing a browser can play.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        with soundfile.SoundFile(path) as file:
            if not 0 < file.frames <= LONGEST_S * file.samplerate or file.channels > 2:
                raise InputError(f"{path} is not mono or stereo of up to {LONGEST_S} s")
            clip, rate = file.read(dtype="float32", always_2d=True), file.samplerate
    except soundfile.LibsndfileError as error:
        raise InputError(f"{path} is no audio: {error.error_string}") from None
    if not len(clip) or not np.isfinite(clip).all():
        raise InputError(f"{path} has no samples, or some that are NaN or infinite")
    return clip, rate


def _page(data: dict[str, Any]) -> str:
    """The page with its style, script and sets inside."""
    parts = files(__package__) / "page"
    page = (parts / "index.html").read_text(encoding="utf-8")
    # In a <script>, "</script>" and "<!--" would end or bend the element.
    inside = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    for mark, text in (
        ("/* style.css */", (parts / "style.css").read_text(encoding="utf-8")),
        ("/* script.js */", (parts / "script.js").read_text(encoding="utf-8")),
        ("TEST_DATA", inside),
    ):
        page = page.replace(mark, text)
    return page


def _readme(build: str) -> str:
    return f"""Listening test {build}

page/       for the listeners: send the folder (zipped, or put on any web space); they open index.html in a browser.
key.json    which system is behind which player. Keep it: listeners must not have it.
answers/    put the files that listeners send back here, then run
            python -m apa_lightning listening-test score --answers answers

Every listener hears the sets, and the edits of a set, in an order of their own. Every set holds a hidden copy of the source,
and in one set of each task one edit comes twice.

{RULE}
A listener's newest file counts. The ratings of unfinished tests count, too.
"""


def _shortened(lines: list[str]) -> list[str]:
    return lines if len(lines) <= NAMED else [*lines[:NAMED], f"and {len(lines) - NAMED} more"]
