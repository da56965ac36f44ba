"""AudioSet's own files: segment lists, label names and the ontology."""

import csv
import difflib
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apa_lightning.errors import InputError
from datamodules.shards.metadata import split_labels

_COLUMNS = {
    "ytid": ("ytid", "yt_id", "youtube_id", "video_id", "videoid", "id"),
    "start": ("start_seconds", "start_s", "start_time_seconds", "start_time", "start"),
    "end": ("end_seconds", "end_s", "end_time_seconds", "end_time", "end"),
    "labels": ("positive_labels", "audioset_positive_labels", "labels", "label", "mids"),
}
"""Names that a header line gives to the four columns, in AudioSet's order. MusicCaps writes `ytid,start_s,end_s,...`."""


@dataclass(frozen=True)
class Segment:
    """A part of a video with its labels (machine ids such as `/m/04rlf`); times in seconds."""

    ytid: str
    start: float
    end: float
    mids: tuple[str, ...]

    @property
    def key(self) -> str:
        """`YTID_30000`: the start in milliseconds, because a key holds no dot."""
        return f"{self.ytid}_{round(self.start * 1000)}"


def read_segments(path: Path) -> list[Segment]:
    """Read a `*_segments.csv`: lines of `YTID, start, end, "/m/a,/m/b"`.

    Lines that start with # are comments. The first line may be a header; then its names say where the columns are.
    Commas, semicolons and tabs separate columns. Labels are ids or display names (see `split_labels`).

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it is not text, if lines are malformed (all are named, up to five), or if it has no segment.
    """
    segments: list[Segment] = []
    bad: list[str] = []
    columns: Sequence[int] | None = None
    with open(path, encoding="utf-8-sig", newline="") as file:
        try:
            for number, line in enumerate(file, start=1):  # line by line, so that a stray quote spoils one line only
                separator = re.match(r"[^,;\t]*([,;\t])", line)
                row = next(csv.reader([line], delimiter=separator[1] if separator else ",", skipinitialspace=True), [])
                if not any(row) or row[0].startswith("#"):
                    continue
                try:
                    if columns is None and (columns := _header(row)) is not None:
                        continue
                    columns = columns or range(4)
                    segments.append(_to_segment(row, columns))
                except ValueError as error:
                    bad.append(f"line {number}: {error}")
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"'{path}' is not a segment list: {error}.") from None
    if bad:
        more = f"; and {len(bad) - 5} more lines" if len(bad) > 5 else ""
        raise InputError(f"'{path}' has lines that cannot be read: {'; '.join(bad[:5])}{more}.")
    if not segments:
        raise InputError(f"'{path}' lists no segments.")
    return segments


def _header(row: Sequence[str]) -> list[int] | None:
    """The places of the four columns if `row` is a header line (known names, or words for times), otherwise None."""
    names = [re.sub(r"\W+", "_", name.strip().lower()) for name in row]
    places = [next((names.index(name) for name in known if name in names), None) for known in _COLUMNS.values()]
    if all(place is None for place in places):
        return None if len(row) < 4 or re.search(r"\d", row[1] + row[2]) else [0, 1, 2, 3]
    if missing := [name for name, place in zip(_COLUMNS, places, strict=True) if place is None]:
        raise ValueError(f"the header line '{','.join(row)}' has no column for {' and '.join(missing)}")
    return [place for place in places if place is not None]


def _to_segment(row: Sequence[str], columns: Sequence[int]) -> Segment:
    if len(row) <= max(columns):
        raise ValueError(f"{len(row)} columns; YTID, start, end and one quoted list of labels are needed")
    ytid, start, end, labels = (row[place].strip() for place in columns)
    if max(columns) == columns[-1]:  # a list of labels without quotes takes the rest of the line
        labels = ",".join(row[columns[-1] :])
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", ytid):
        raise ValueError(f"'{ytid}' is not a YouTube id")
    try:
        first, last = float(start), float(end)
    except ValueError:
        raise ValueError(f"'{start}' and '{end}' must be times in seconds") from None
    if not (math.isfinite(first) and math.isfinite(last) and 0 <= first < last):
        raise ValueError(f"from {start} to {end} s is not a span of time")
    mids = tuple(split_labels(labels))
    if not mids:
        raise ValueError("no labels")
    return Segment(ytid, first, last, mids)


def read_class_labels(path: Path) -> dict[str, str]:
    """Read `class_labels_indices.csv` (index, mid, display_name) to names by mid.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it does not have these columns.
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
        FileNotFoundError: If there is no such file.
        InputError: If it is not a list of objects with `id`, `name` and `child_ids`.
    """

    def __init__(self, path: Path) -> None:
        try:
            entries: Any = json.loads(path.read_bytes())
            self.names: dict[str, str] = {str(e["id"]): str(e["name"]) for e in entries}
            self._children: dict[str, list[str]] = {str(e["id"]): [str(c) for c in e["child_ids"]] for e in entries}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"'{path}' is not AudioSet's ontology.json: {error}.") from None

    def branch(self, name: str) -> set[str]:
        """Return the ids of a node, given by name or id, and of all nodes below it."""
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
    """Find the ids of labels that are given by id or display name, in any case.

    Raises:
        InputError: If there is no such label; similar ones are named.
    """
    by_name = {name.lower(): mid for mid, name in names.items()}
    found = []
    for label in wanted:
        mid = label if label in names else by_name.get(label.lower())
        if mid is None:
            close = similar(label, names.values(), 3)
            hint = f" Similar: {'; '.join(close)}." if close else ""
            raise InputError(f"{option}: AudioSet has no label '{label}'.{hint}")
        found.append(mid)
    return found


def similar(label: str, names: Iterable[str], most: int = 1) -> list[str]:
    """Choose the names that are spelled most like a label, the nearest first."""
    by_name = {name.lower(): name for name in names}
    return [by_name[found] for found in difflib.get_close_matches(label.lower(), by_name, n=most, cutoff=0.5)]
