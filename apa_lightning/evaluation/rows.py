"""The table of an evaluation: one row per edit and system, kept as ``results.csv``."""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import atomic_path

RESULTS = "results.csv"
#: What is said of an edit, in the order of the columns.
ABOUT = (
    "id", "task", "system", "set", "source", "instrument", "target", "prompt", "negative_prompt", "score_text",
    "audio", "output",
)  # fmt: skip
#: The editor's knobs; a cell is empty where a system does not read the knob.
KNOBS = (*EditSettings.operating_point(), "seed")


@dataclass(frozen=True)
class Measured:
    """A column of figures: ``title`` as tables show it; whether more is better; the column of its floor, if it has one."""

    title: str
    higher_is_better: bool = True
    floor: str = ""


#: The figures of one edit. A floor is the same figure against another recording than the edit's own.
METRICS = {
    "clap": Measured("CLAP"),
    "delta_clap": Measured("delta CLAP"),
    "directional_clap": Measured("directional CLAP"),
    "chroma": Measured("chroma", floor="chroma_floor"),
    "chroma_floor": Measured("chroma floor", higher_is_better=False),
    "melody": Measured("melody accuracy", floor="melody_floor"),
    "melody_floor": Measured("melody floor", higher_is_better=False),
    "cqt": Measured("CQT-1"),
    "onset_f1": Measured("onset F1"),
    "beat_f1": Measured("beat F1"),
    "loudness": Measured("loudness"),
    "lpaps": Measured("LPAPS", higher_is_better=False),
    "recognised": Measured("target recognised"),
}


@dataclass(frozen=True)
class Row:
    """One edit by one system.

    Attributes:
        about: by :data:`ABOUT`; paths are relative to the evaluation's folder.
        knobs: by :data:`KNOBS`, those that the system has.
        figures: by :data:`METRICS`; NaN where there is none.
    """

    about: dict[str, str]
    knobs: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def __getattr__(self, name: str) -> str:
        """``row.task`` and the other fields of :data:`ABOUT`."""
        try:
            return self.__dict__["about"][name]
        except KeyError:
            raise AttributeError(name) from None

    def figure(self, name: str) -> float:
        """A figure, NaN where it was not measured."""
        return self.figures.get(name, math.nan)


def write_rows(folder: Path, rows: Iterable[Row]) -> Path:
    """Write ``results.csv`` into ``folder``, whole or not at all."""
    path = folder / RESULTS
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8-sig", newline="") as file,  # the mark lets spreadsheets see UTF-8
    ):
        writer = csv.writer(file)
        writer.writerow([*ABOUT, *KNOBS, *METRICS])
        for row in rows:
            knobs = ["" if row.knobs.get(name) is None else row.knobs[name] for name in KNOBS]
            figures = ["" if math.isnan(row.figure(name)) else f"{row.figure(name):.6g}" for name in METRICS]
            writer.writerow([*(row.about[name] for name in ABOUT), *knobs, *figures])
    return path


def read_rows(folder: Path) -> list[Row]:
    """The rows of an evaluation's folder; knobs that are numbers are read as such.

    Raises:
        InputError: there is no ``results.csv``, or it is none of ours.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise InputError(
            f"{path} is missing. Make it first: python -m apa_lightning evaluate ... --data.output {folder}"
        )
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            found = list(csv.DictReader(file))
        return [_row(fields) for fields in found]
    except (KeyError, ValueError, TypeError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no table of an evaluation ({error!r}). Run evaluate again.") from error


def _row(fields: dict[str, str]) -> Row:
    return Row(
        {name: fields[name] for name in ABOUT},
        {name: _plain(fields[name]) for name in KNOBS if fields[name] != ""},
        {name: float(fields[name] or "nan") for name in METRICS},
    )


def _plain(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def tasks_of(rows: Sequence[Row]) -> list[str]:
    """The tasks in order of appearance."""
    return list(dict.fromkeys(row.task for row in rows))


def systems_of(rows: Sequence[Row]) -> list[str]:
    """The systems in order of appearance."""
    return list(dict.fromkeys(row.system for row in rows))
