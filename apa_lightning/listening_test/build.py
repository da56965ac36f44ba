"""``listening-test build``: an evaluation's edits as one self-contained page for listeners."""

import io
import os
import random
import secrets
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from apa_lightning.audio import AudioError, load_audio, probe_audio
from apa_lightning.errors import InputError
from apa_lightning.evaluation.rows import RESULTS, EvaluationRow, read_rows
from apa_lightning.listening_test.attention import RULE
from apa_lightning.listening_test.key import HIDDEN_SOURCE, KEY_FILE, Item, Key
from apa_lightning.listening_test.questions import POINTS, QUESTIONS
from apa_lightning.utils.templates import render

#: Systems that edit nothing; the hidden copy of the source replaces them.
NOT_EDITING = ("no_op", "codec")
LONGEST_S = 120
NAMED = 10  # left-out sets that are printed

#: The rows of one edit by system.
Edit = dict[str, EvaluationRow]
#: Samples of shape (S, channels) and their rate.
Clip = tuple[np.ndarray, int]


def build(evaluation: Path, out: Path, systems: list[str] | None = None, sets_per_task: int = 5, seed: int = 0) -> None:
    """Make a blind listening test from an evaluation's audio.

    ``OUT/page`` is for the listeners: one page with its audio, which needs no server. ``OUT/key.json`` names the system
    behind each player; keep it. A set consists of one source, its text, the edits of all systems and a hidden copy of the
    source; in the first set of each task one edit appears twice. ``listening-test score`` uses the hidden copies and the
    repeated edits to reject inattentive listeners.

    Args:
        evaluation: Output folder of ``evaluate``.
        out: New folder for the test.
        systems: Systems to compare, at least two; by default all of the evaluation but no_op, codec and a sweep's points.
        sets_per_task: Number of sets of each task.
        seed: Seed of the choice of sets and repeated edits.

    Raises:
        InputError: If a setting or the table is wrong, or if no set has playable audio of all systems.
    """
    if sets_per_task < 1:
        raise InputError(f"sets_per_task: must be 1 or more, got {sets_per_task}.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"out: {out} exists already and is not an empty folder; give a new folder.")
    tasks = read_edits(evaluation)
    systems = _chosen_systems(tasks, systems, evaluation)
    folder = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(folder, ignore_errors=True)  # left by a killed build
    try:
        test = _Test(folder / "page", systems, random.Random(seed))
        for task, edits in tasks.items():
            test.add_task(task, edits.values(), evaluation, sets_per_task)
        for line in test.left_out[:NAMED]:
            print(f"left out: {line}")
        if len(test.left_out) > NAMED:
            print(f"left out: and {len(test.left_out) - NAMED} more")
        if not test.sets:
            raise InputError(
                f"evaluation: {evaluation} has no set with playable audio of all of {', '.join(systems)}; "
                "choose systems that have audio with --systems."
            )
        test.save(folder)
        os.replace(folder, out)
    except OSError as error:
        if not error.filename or folder in Path(error.filename).parents:
            error.filename = str(out)  # a full disk names no file, and users do not know the temporary ones
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    counts = Counter(item["task"] for item in test.sets)
    print(
        f"{len(test.sets)} sets ({', '.join(f'{task} {count}' for task, count in counts.items())}) with {len(test.items)} "
        f"clips to rate, {test.seconds / 60:.0f} min of audio, of the systems {', '.join(systems)}.\n"
        f"Send {out / 'page'} to listeners; they open index.html. Keep {out / KEY_FILE}: it names the system behind each player.\n"
        f"Put the files that they send back into {out / 'answers'} and run: listening-test score --answers {out / 'answers'}"
    )


def read_edits(evaluation: Path) -> dict[str, dict[str, Edit]]:
    """The rows of ``evaluation/results.csv`` by task, id and system.

    Raises:
        InputError: If the file is missing, is not the table of an evaluation, or has no rows.
    """
    tasks: dict[str, dict[str, Edit]] = {}
    for row in read_rows(evaluation):
        tasks.setdefault(row.task, {}).setdefault(row.id, {})[row.system] = row
    if not tasks:
        raise InputError(f"evaluation: {evaluation / RESULTS} has no rows; run `evaluate` again.")
    return tasks


def _chosen_systems(tasks: dict[str, dict[str, Edit]], asked: list[str] | None, evaluation: Path) -> list[str]:
    present = list(dict.fromkeys(name for edits in tasks.values() for rows in edits.values() for name in rows))
    by_default = [name for name in present if name not in NOT_EDITING and "=" not in name]
    systems = by_default if asked is None else list(dict.fromkeys(asked))
    if unknown := [name for name in systems if name not in present]:
        raise InputError(f"systems: {', '.join(unknown)} is not in {evaluation}, which has {', '.join(present)}.")
    if len(systems) < 2:
        raise InputError(
            f"systems: a comparison needs at least two, got {', '.join(systems) or 'none'}; "
            f"{evaluation} has {', '.join(present)}."
        )
    return systems


class _Test:
    """Collects the sets of the page and the items of the key, and writes the audio."""

    def __init__(self, page: Path, systems: list[str], random_state: random.Random) -> None:
        self.page, self.systems, self.random = page, systems, random_state
        self.sets: list[dict[str, Any]] = []
        self.items: dict[str, Item] = {}
        self.left_out: list[str] = []
        self.seconds = 0.0
        (page / "audio").mkdir(parents=True)

    def add_task(self, task: str, edits: Iterable[Edit], evaluation: Path, count: int) -> None:
        """Add ``count`` sets of a task, of as many sources as possible, and note those that cannot be used."""
        found = 0
        for rows in _spread(edits, self.random):
            name = next(iter(rows.values())).id
            if lacking := [system for system in self.systems if system not in rows]:
                self.left_out.append(f"{task} {name}: no edit of {', '.join(lacking)}")
            elif found < count:
                try:
                    clips = {system: _read_clip(evaluation / rows[system].output) for system in self.systems}
                    clips[HIDDEN_SOURCE] = _read_clip(evaluation / rows[self.systems[0]].audio)
                except InputError as error:
                    self.left_out.append(f"{task} {name}: {error}")
                else:
                    self._add_set(rows[self.systems[0]], clips, repeat=not found)
                    found += 1
        if found < count:
            self.left_out.append(f"{task}: only {found} of the {count} requested sets")

    def _add_set(self, row: EvaluationRow, clips: dict[str, Clip], repeat: bool) -> None:
        items = [
            Item(row.task, row.id, row.source, name, control="source" if name == HIDDEN_SOURCE else "")
            for name in clips
        ]
        if repeat:
            items.append(self.random.choice(items[:-1])._replace(control="repeat"))
        tokens = {self._write(clips[item.system]): item for item in items}
        self.items |= tokens
        self.sets.append(
            {
                "token": secrets.token_hex(8),
                "task": row.task,
                "text": row.prompt,
                "source": self._write(clips[HIDDEN_SOURCE]),
                "items": sorted(tokens),
            }
        )

    def _write(self, clip: Clip) -> str:
        """Write a clip under a random token, without metadata, so that nothing tells its origin; return the token."""
        token = secrets.token_hex(8)
        encoded = io.BytesIO()  # soundfile reports a full disk as "System error"; writing bytes says what it is
        soundfile.write(encoded, *clip, format="WAV", subtype="PCM_16")
        (self.page / "audio" / f"{token}.wav").write_bytes(encoded.getbuffer())
        self.seconds += len(clip[0]) / clip[1]
        return token

    def save(self, folder: Path) -> None:
        """Write the page, the instructions and the key into the folder of the test."""
        build = secrets.token_hex(6)
        test = {
            "build": build,
            "points": POINTS,
            "questions": [question._asdict() for question in QUESTIONS],
            "sets": sorted(self.sets, key=lambda one: one["token"]),
        }
        page = render(__package__, "index.html.j2", test=test)
        (self.page / "index.html").write_text(page, encoding="utf-8")
        (folder / "README.txt").write_text(
            render(__package__, "README.txt.j2", build=build, rule=RULE), encoding="utf-8"
        )
        (folder / "answers").mkdir()
        Key(build, self.systems, self.items).save(folder / KEY_FILE)


def _spread(edits: Iterable[Edit], random_state: random.Random) -> list[Edit]:
    """The edits in random order, but with every source once before any source repeats."""
    shuffled = list(edits)
    random_state.shuffle(shuffled)
    seen: Counter[str] = Counter()
    rounds = []
    for rows in shuffled:
        source = next(iter(rows.values())).source
        rounds.append(seen[source])
        seen[source] += 1
    return [shuffled[i] for i in sorted(range(len(shuffled)), key=rounds.__getitem__)]


def _read_clip(path: Path) -> Clip:
    """Read a clip that a browser can play.

    Raises:
        InputError: If the file is missing, is not audio, or has a length, channels or samples that cannot be played.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        info = probe_audio(path)
        if info.seconds > LONGEST_S or info.channels > 2:
            raise InputError(f"{path} is not mono or stereo of up to {LONGEST_S} s")
        waveform, rate = load_audio(path)
    except AudioError as error:
        raise InputError(f"{path} is not audio: {error}") from None
    return waveform.T.numpy(), rate
