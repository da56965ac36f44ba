"""The table of an evaluation: one row per edit and system, kept as ``results.csv``."""

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import atomic_path

if TYPE_CHECKING:
    from apa_lightning.metrics import EditMetric

RESULTS = "results.csv"
ABOUT_FILE, DISTANCES = "evaluation.json", "set_metrics.json"
#: Facts about an edit, in the order of the columns.
ABOUT = (
    "id", "task", "system", "set", "source", "instrument", "target", "prompt", "negative_prompt", "score_text",
    "audio", "output",
)  # fmt: skip
#: The editor's knobs; a cell is empty where a system does not read the knob.
KNOBS = (*EditSettings.operating_point(), "seed")


@dataclass(frozen=True)
class ScoreColumn:
    """A column of scores.

    Attributes:
        title: Name in tables and plots.
        higher_is_better: Whether more is better.
        floor: Column of the floor, the same metric against the source of another edit; empty if there is none.
    """

    title: str
    higher_is_better: bool = True
    floor: str = ""


@dataclass(frozen=True)
class EvaluationRow:
    """One edit by one system.

    Attributes:
        about: Facts by :data:`ABOUT`; paths are relative to the evaluation's folder.
        knobs: Values by :data:`KNOBS` of the knobs that the system reads.
        scores: Scores by column; NaN where there is none.
        columns: The columns of scores of the whole table.
    """

    about: dict[str, str]
    knobs: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    columns: Mapping[str, ScoreColumn] = field(default_factory=dict, repr=False)

    def __getattr__(self, name: str) -> str:
        """``row.task`` and the other fields of :data:`ABOUT`."""
        try:
            return self.__dict__["about"][name]
        except KeyError:
            raise AttributeError(name) from None

    def score(self, name: str) -> float:
        """A score; NaN where it was not measured."""
        return self.scores.get(name, math.nan)


def columns_for(metrics: "Iterable[EditMetric]") -> dict[str, ScoreColumn]:
    """The columns of metrics, in their order; the column of a floor follows that of its metric."""
    columns = {}
    for metric in metrics:
        floors = metric.columns[1:]
        columns[metric.name] = ScoreColumn(metric.title, bool(metric.higher_is_better), "".join(floors))
        columns |= {floor: ScoreColumn(f"{metric.title} floor", False) for floor in floors}
    return columns


def columns_of(rows: Sequence[EvaluationRow]) -> Mapping[str, ScoreColumn]:
    """The columns of scores of a table; empty without rows."""
    return rows[0].columns if rows else {}


def metrics_of(rows: Sequence[EvaluationRow]) -> list[str]:
    """The columns of scores of a table, without those of floors."""
    columns = columns_of(rows)
    return [name for name in columns if name not in {column.floor for column in columns.values()}]


def title_of(rows: Sequence[EvaluationRow], name: str) -> str:
    """The title of a column of scores."""
    return columns_of(rows)[name].title if name in columns_of(rows) else name


def write_rows(folder: Path, rows: Sequence[EvaluationRow]) -> Path:
    """Write ``results.csv`` into ``folder``, whole or not at all."""
    path, columns = folder / RESULTS, columns_of(rows)
    with (
        atomic_path(path) as temporary,
        open(temporary, "w", encoding="utf-8-sig", newline="") as file,  # the mark lets spreadsheets see UTF-8
    ):
        writer = csv.writer(file)
        writer.writerow([*ABOUT, *KNOBS, *columns])
        for row in rows:
            knobs = [_cell(row.knobs.get(name)) for name in KNOBS]
            scores = ["" if math.isnan(row.score(name)) else f"{row.score(name):.6g}" for name in columns]
            writer.writerow([*(row.about[name] for name in ABOUT), *knobs, *scores])
    return path


def read_rows(folder: Path) -> list[EvaluationRow]:
    """The rows of an evaluation's folder; knobs that are numbers, mappings or lists are read as such.

    The titles of the columns and their better sides are those of ``evaluation.json``; without it a column has its own name.

    Raises:
        InputError: If there is no ``results.csv``, or if it is not a table of an evaluation.
    """
    path = folder / RESULTS
    if not path.is_file():
        raise InputError(f"{path} is missing. Give the output folder of evaluate.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = [name for name in reader.fieldnames or () if name not in (*ABOUT, *KNOBS)]
            knobs = [name for name in KNOBS if name in (reader.fieldnames or ())]  # an older table lacks later ones
            found = list(reader)
        known = read_json(folder / ABOUT_FILE, {}).get("metrics", {})
        columns = {
            name: ScoreColumn(**known[name])
            if name in known
            else ScoreColumn(name, floor=f"{name}_floor" if f"{name}_floor" in names else "")
            for name in names
        }
        return [
            EvaluationRow(
                {name: fields[name] for name in ABOUT},
                {name: _plain(fields[name]) for name in knobs if fields[name] != ""},
                {name: float(fields[name] or "nan") for name in columns},
                columns,
            )
            for fields in found
        ]
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a table of an evaluation ({error!r}). Run evaluate again.") from error


def read_json(path: Path, default: Any) -> Any:
    """The content of a JSON file, or ``default`` if it does not exist."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default


def _cell(value: Any) -> Any:
    """A knob's value in a table: nothing for null, JSON for an ``ap_scale`` of single blocks."""
    return "" if value is None else json.dumps(value) if isinstance(value, Mapping | list | tuple) else value


def _plain(text: str) -> Any:
    for kind in (int, float, json.loads):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def tasks_of(rows: Sequence[EvaluationRow]) -> list[str]:
    """The tasks in order of appearance."""
    return list(dict.fromkeys(row.task for row in rows))


def systems_of(rows: Sequence[EvaluationRow]) -> list[str]:
    """The systems in order of appearance."""
    return list(dict.fromkeys(row.system for row in rows))
