"""AudioSet's own files: segment lists, label names, the ontology, and a folder of clips."""

import csv
import difflib
import json
import math
import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apa_lightning.errors import InputError
from datamodules.shards.index import AUDIO_EXTENSIONS


@dataclass(frozen=True)
class Segment:
    """A stretch of a video with its labels (machine ids such as `/m/04rlf`); times in seconds."""

    ytid: str
    start: float
    end: float
    mids: tuple[str, ...]

    @property
    def key(self) -> str:
        """`YTID_30000`: the start in milliseconds, because a key holds no dot."""
        return f"{self.ytid}_{round(self.start * 1000)}"


# --- lists ------------------------------------------------------------------------------------------------------------


def read_segments(path: Path) -> list[Segment]:
    """Read a `*_segments.csv`: lines of `YTID, start, end, "/m/a,/m/b"`; lines that begin with # are comments.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is no text, a line is malformed (all are named, up to five), or there is none.
    """
    segments: list[Segment] = []
    bad: list[str] = []
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            for number, line in enumerate(file, start=1):  # line by line, so that a stray quote spoils one line only
                row = next(csv.reader([line], skipinitialspace=True), [])
                if not row or row[0].startswith("#"):
                    continue
                try:
                    segments.append(_to_segment(row))
                except ValueError as error:
                    bad.append(f"line {number}: {error}")
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"'{path}' is no segment list: {error}.") from None
    if bad:
        more = f"; and {len(bad) - 5} more lines" if len(bad) > 5 else ""
        raise InputError(f"'{path}' has lines that cannot be read: {'; '.join(bad[:5])}{more}.")
    if not segments:
        raise InputError(f"'{path}' lists no segments.")
    return segments


def _to_segment(row: Sequence[str]) -> Segment:
    if len(row) != 4:
        raise ValueError(f"{len(row)} columns; YTID, start, end and one quoted list of labels are needed")
    ytid, start, end = row[0].strip(), float(row[1]), float(row[2])
    if not ytid or not all(c.isascii() and (c.isalnum() or c in "_-") for c in ytid) or len(ytid) > 64:
        raise ValueError(f"'{ytid}' is no YouTube id")
    if not (math.isfinite(start) and math.isfinite(end) and 0 <= start < end):
        raise ValueError(f"from {row[1]} to {row[2]} s is no stretch of time")
    mids = tuple(mid.strip() for mid in row[3].split(",") if mid.strip())
    if not mids:
        raise ValueError("no labels")
    return Segment(ytid, start, end, mids)


def read_class_labels(path: Path) -> dict[str, str]:
    """Read `class_labels_indices.csv` (index, mid, display_name; names may hold commas): mid -> name.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It has not these columns.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            names = {row["mid"].strip(): row["display_name"].strip() for row in csv.DictReader(file)}
    except (KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"'{path}' has no columns index, mid, display_name ({error}).") from None
    if not names:
        raise InputError(f"'{path}' lists no labels.")
    return names


class Ontology:
    """AudioSet's `ontology.json`.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is no list of objects with `id`, `name` and `child_ids`.
    """

    def __init__(self, path: Path) -> None:
        try:
            entries: Any = json.loads(path.read_bytes())
            self.names: dict[str, str] = {str(e["id"]): str(e["name"]) for e in entries}
            self._children: dict[str, list[str]] = {str(e["id"]): [str(c) for c in e["child_ids"]] for e in entries}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"'{path}' is not AudioSet's ontology.json: {error}.") from None

    def branch(self, name: str) -> set[str]:
        """The ids of a node, given by name or id, and of all nodes below it."""
        (root,) = find_labels([name], self.names, "--branch")
        found: set[str] = set()
        waiting = [root]
        while waiting:
            mid = waiting.pop()
            if mid not in found:
                found.add(mid)
                waiting += self._children.get(mid, [])
        return found


def find_labels(wanted: Iterable[str], names: dict[str, str], option: str) -> list[str]:
    """The ids of labels given by id or display name, whatever the case.

    Raises:
        InputError: There is no such label; similar ones are named.
    """
    by_name = {name.lower(): mid for mid, name in names.items()}
    found = []
    for label in wanted:
        mid = label if label in names else by_name.get(label.lower())
        if mid is None:
            close = difflib.get_close_matches(label.lower(), by_name, n=3)
            hint = f" Similar: {'; '.join(names[by_name[c]] for c in close)}." if close else ""
            raise InputError(f"{option}: AudioSet has no label '{label}'.{hint}")
        found.append(mid)
    return found


# --- clips ------------------------------------------------------------------------------------------------------------


def match_clips(segments: Sequence[Segment], folder: Path) -> list[tuple[Path | None, str]]:
    """Find each segment's clip in a folder and its subfolders.

    A clip is named by its video, `YTID.wav`, or by video and start, `YTID_30.wav`, where tools write the start as
    `30`, `30.0`, `30.000` or, in milliseconds, `30000`; an end may follow, as in `YTID_30_40.wav`. A name is held
    against the starts in the list, so a video id that itself ends in `_30` is no trouble: a name that is some
    segment's start in seconds belongs to that segment; otherwise one that is a start in milliseconds; otherwise one
    without a start. A name that fits several segments equally well (a video with two segments and one file without a
    start) is used for none.

    Returns:
        For each segment its file, or None and why there is none.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--clips: '{folder}' is no folder.")
    files, others = _list_clips(folder)
    claims: dict[str, list[tuple[int, int]]] = defaultdict(list)  # stem -> (how well it fits, segment)
    stems = [_stems(segment) for segment in segments]
    for number, forms in enumerate(stems):
        for stem, fit in forms.items():
            if stem in files:
                claims[stem].append((fit, number))
    owner = {}
    for stem, claimed in claims.items():
        best = [number for fit, number in claimed if fit == min(claimed)[0]]
        owner[stem] = best[0] if len(best) == 1 else None
    found: list[tuple[Path | None, str]] = []
    for number, forms in enumerate(stems):
        own = [stem for stem in sorted(forms, key=forms.__getitem__) if owner.get(stem, -1) == number]
        if own:
            found.append((files[own[0]], ""))
        elif taken := [stem for stem in forms if stem in files]:
            found.append(
                (None, f"'{files[taken[0]].name}' fits several segments; put the start in seconds in its name")
            )
        elif other := [others[stem] for stem in forms if stem in others]:
            found.append((None, f"'{other[0].name}' is there; convert it to one of {', '.join(AUDIO_EXTENSIONS)}"))
        else:
            found.append((None, "no such file"))
    return found


def _list_clips(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Audio files and other files by stem; of several with one stem the first extension of our list wins."""
    files: dict[str, Path] = {}
    others: dict[str, Path] = {}
    ranks = {extension: rank for rank, extension in enumerate(AUDIO_EXTENSIONS)}
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place, name)
            extension = path.suffix[1:].lower()
            if extension not in ranks:
                others.setdefault(path.stem, path)
            elif path.stem not in files or ranks[extension] < ranks[files[path.stem].suffix[1:].lower()]:
                files[path.stem] = path
    return files, others


def _stems(segment: Segment) -> dict[str, int]:
    """Every way to write the file's name -> how well it fits: 0 seconds, 1 milliseconds, 2 no start."""
    starts, ends = _seconds(segment.start), _seconds(segment.end)
    forms = {segment.ytid: 2}
    milliseconds = [f"{round(time * 1000)}" for time in (segment.start, segment.end)]
    for stem in (milliseconds[0], "_".join(milliseconds)):
        forms[f"{segment.ytid}_{stem}"] = 1
    for start in starts:
        for stem in (start, *(f"{start}_{end}" for end in ends)):
            forms[f"{segment.ytid}_{stem}"] = 0
    return forms


def _seconds(time: float) -> Collection[str]:
    texts = {f"{time:.3f}", f"{time:.2f}", f"{time:.1f}", f"{time:.0f}"}
    return {text for text in texts if float(text) == time}
