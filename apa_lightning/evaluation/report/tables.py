"""The paper's Table 1 and a table of all other metrics, from the rows of an evaluation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from apa_lightning.evaluation.rows import EvaluationRow, columns_of, metrics_of, systems_of, tasks_of, title_of
from apa_lightning.evaluation.summary import MEAN_OF_TASKS, UNKNOWN, compared, means
from apa_lightning.evaluation.sweep import SYMBOLS, correlations
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.bootstrap import Interval

FILE = "table1.md"
TABLE_1 = ("clap", "chroma", "fad")
#: Systems that return the source, unchanged or coded and decoded: references that are never marked as the best.
REFERENCES = ("no_op", "codec")
NONE = "–"
NOTHING = "No edits have been measured."


class Cell(NamedTuple):
    """A score as a table shows it.

    Attributes:
        text: Mean.
        interval: Its interval; may be empty.
        floor: Its floor; may be empty.
        best: Whether it is the best score of its task and metric.
    """

    text: str
    interval: str = ""
    floor: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table to be shown.

    Attributes:
        title: Heading.
        names: Titles of the leading columns, which name a row.
        columns: Group and title of each column of scores.
        rows: Names and cells of each row.
        notes: Sentences below the table.
    """

    title: str
    names: tuple[str, ...]
    columns: list[tuple[str, str]]
    rows: list[tuple[tuple[str, ...], list[Cell]]]
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> list[tuple[str, int]]:
        """The groups of columns in order, with the number of columns of each."""
        return [(group, len(list(columns))) for group, columns in groupby(group for group, _ in self.columns)]


class Scores:
    """All mean scores of an evaluation, of edits and of sets.

    Attributes:
        tasks: Tasks in order of appearance.
        systems: Systems in order of appearance, without the points of sweeps.
        columns: The columns of scores of edits.
        metrics: Names of those columns, without floors.
        set_metrics: Titles of the metrics of sets, by name.
        found: Means with intervals, by (task, system, metric).
    """

    def __init__(self, rows: Sequence[EvaluationRow], set_metrics: Sequence[dict[str, Any]], seed: int = 0):
        """Average the rows.

        Args:
            rows: Rows of an evaluation.
            set_metrics: Content of its ``set_metrics.json``.
            seed: Seed of the intervals.
        """
        rows = compared(rows)
        self.tasks, self.systems = tasks_of(rows), systems_of(rows)
        self.columns, self.metrics = columns_of(rows), metrics_of(rows)
        self.set_metrics = {entry["metric"]: entry.get("title", entry["metric"]) for entry in set_metrics}
        self.found = {key: mean.interval for key, mean in means(rows, seed).items()}
        for entry in set_metrics:
            if entry.get("value") is not None:
                bounds = (math.nan if entry.get(name) is None else entry[name] for name in ("low", "high"))
                self.found[entry["task"], entry["system"], entry["metric"]] = Interval(entry["value"], *bounds)
        if len(self.tasks) > 1:
            for system in self.systems:
                for metric in self.set_metrics:
                    values = [self.at(task, system, metric).mean for task in self.tasks]
                    if all(map(math.isfinite, values)):  # without an interval: tasks do not share their draws
                        mean = Interval(sum(values) / len(values), math.nan, math.nan)
                        self.found[MEAN_OF_TASKS, system, metric] = mean

    def at(self, task: str, system: str, metric: str) -> Interval:
        """A mean with its interval; NaN where nothing was measured."""
        return self.found.get((task, system, metric), UNKNOWN)

    def measured(self, metric: str) -> bool:
        """Whether the metric has a score for any task and system."""
        return any(key[2] == metric for key in self.found)

    @property
    def groups(self) -> list[str]:
        """The tasks and, if there are several, their mean."""
        return [*self.tasks, MEAN_OF_TASKS] if len(self.tasks) > 1 else self.tasks

    def title(self, metric: str) -> str:
        """The title of a metric; one that was not measured has its name."""
        column = self.columns.get(metric)
        return column.title if column else self.set_metrics.get(metric, metric.replace("_", " ").upper())

    def heading(self, metric: str) -> str:
        """The title of a metric, with an arrow towards better values; distances between sets are better when lower."""
        return (
            f"{self.title(metric)} {'↑' if metric in self.columns and self.columns[metric].higher_is_better else '↓'}"
        )

    def cell(self, task: str, system: str, metric: str) -> Cell:
        """One score for a table; it is marked if it is the best of at least two systems that edit."""
        mean, low, high = self.at(task, system, metric)
        if not math.isfinite(mean):
            return Cell(NONE)
        floor = self.at(task, system, self.columns[metric].floor).mean if metric in self.columns else math.nan
        return Cell(
            number(mean),
            f"[{number(low)}, {number(high)}]" if math.isfinite(low) else "",
            f"floor {number(floor)}" if math.isfinite(floor) else "",
            system not in REFERENCES and mean == self._best(task, metric),
        )

    def _best(self, task: str, metric: str) -> float:
        values = [self.at(task, system, metric).mean for system in self.systems if system not in REFERENCES]
        known = [value for value in values if math.isfinite(value)]
        higher = metric in self.columns and self.columns[metric].higher_is_better
        return math.nan if len(known) < 2 else max(known) if higher else min(known)


def number(value: float) -> str:
    """A score with three decimals, or with four digits from 100 on."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def tables(
    rows: Sequence[EvaluationRow], set_metrics: Sequence[dict[str, Any]], about: dict[str, Any], seed: int = 0
) -> list[Table]:
    """Table 1, and the other metrics by task and system; an empty list without rows."""
    scores = Scores(rows, set_metrics, seed)
    if not scores.systems:
        return []
    clap, embedding, reference, name, sources = (
        about.get(key) or "not stated" for key in ("clap", "embedding", "reference", "set", "sources")
    )
    columns = [(group, metric) for group in scores.groups for metric in TABLE_1]
    first = Table(
        "Table 1",
        ("system",),
        [(group, scores.heading(metric)) for group, metric in columns],
        [((system,), [scores.cell(group, system, metric) for group, metric in columns]) for system in scores.systems],
        (
            f"CLAP: {clap}. FAD over embeddings of {embedding} against {reference}. Set: {name}; sources: {sources}.",
            "Means with 95 % intervals over sources; intervals of FAD are those of set_metrics.json. A floor is the same "
            f"metric against another recording. The best score is bold; {' and '.join(REFERENCES)} edit nothing and do "
            "not compete.",
        ),
    )
    others = [metric for metric in (*scores.metrics, *scores.set_metrics) if metric not in TABLE_1]
    shown = [metric for metric in others if scores.measured(metric)]
    lines = [(group, system) for group in scores.groups for system in scores.systems] if shown else []
    second = Table(
        "All other metrics",
        ("task", "system"),
        [("", scores.heading(metric)) for metric in shown],
        [(line, [scores.cell(*line, metric) for metric in shown]) for line in lines],
        tuple(_missing(scores, [*TABLE_1, *others], set_metrics, about)),
    )
    return [first, second]


def correlation_table(rows: Sequence[EvaluationRow], task: str, seed: int = 0) -> Table:
    """Rank correlations of each swept knob with each metric; without rows if no knob was swept."""
    found = {(of.knob, of.metric): of.interval for of in correlations(rows, task, seed)}
    metrics = [metric for metric in metrics_of(rows) if any(metric == of for _, of in found)]

    def cell(interval: Interval | None) -> Cell:
        return (
            Cell(NONE)
            if interval is None
            else Cell("{:+.2f}".format(*interval), "[{1:+.2f}, {2:+.2f}]".format(*interval))
        )

    return Table(
        "",
        ("knob",),
        [("", title_of(rows, metric)) for metric in metrics],
        [
            ((SYMBOLS[knob],), [cell(found.get((knob, metric))) for metric in metrics])
            for knob in dict.fromkeys(knob for knob, _ in found)
        ],
        (
            "Spearman's rank correlation of a knob with a metric over edits, where only this knob varies; 95 % intervals "
            "over sources.",
        )
        if found
        else (),
    )


def _missing(
    scores: Scores, wanted: Sequence[str], set_metrics: Sequence[dict[str, Any]], about: dict[str, Any]
) -> list[str]:
    """Reasons for missing scores: skipped metrics, metrics without any score, and scores of sets without a value."""
    skipped = dict(about.get("skipped_metrics") or {})
    notes = [f"Skipped: {name}: {why}" for name, why in skipped.items()]
    titles = [scores.title(name) for name in wanted if not scores.measured(name) and name not in skipped]
    absent = [title for title in titles if title not in skipped]
    notes += [f"Not measured: {', '.join(absent)}."] if absent else []
    reasons: dict[str, list[str]] = {}
    for entry in set_metrics:
        if entry.get("value") is None and entry["metric"] not in skipped:
            why = f"{scores.title(entry['metric'])}: {entry.get('why') or 'no reason given'}"
            reasons.setdefault(why, []).append(f"{entry['task']} {entry['system']}")
    return notes + [f"{why} ({', '.join(where)})" for why, where in reasons.items()]


def as_markdown(table: Table) -> str:
    """The table in Markdown, with its notes."""
    parts = [f"## {table.title}"] if table.title else []
    if table.columns:
        heads = [*table.names, *(f"{group} {title}".strip() for group, title in table.columns)]
        lines = [
            map(_plain, heads),
            *([*map(_plain, names), *map(_markdown_cell, cells)] for names, cells in table.rows),
        ]
        head, *body = (f"| {' | '.join(line)} |" for line in lines)
        parts.append("\n".join([head, "|" + "---|" * len(heads), *body]))
    return "\n\n".join([*parts, "\n".join(f"- {_plain(note)}" for note in table.notes)])


def _markdown_cell(cell: Cell) -> str:
    return " ".join(filter(None, (f"**{cell.text}**" if cell.best else cell.text, cell.interval, cell.floor)))


def _plain(text: str) -> str:
    """Text that cannot end a cell of a Markdown table or start a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def write_tables(folder: Path, rows: list[EvaluationRow], set_metrics: list[dict], about: dict) -> None:
    """Write ``table1.md``.

    Args:
        folder: Output folder of the evaluation.
        rows: Content of its ``results.csv``.
        set_metrics: Content of its ``set_metrics.json``.
        about: Content of its ``evaluation.json``; may be empty. Its ``seed`` is the seed of the intervals.
    """
    made = tables(rows, set_metrics, about, int(about.get("seed") or 0))
    systems = dict(about.get("systems") or {})
    parts = ["# Evaluation", *(map(as_markdown, made) if made else [NOTHING])]
    if made and systems:
        parts.append("Systems:\n\n" + "\n".join(f"- {_plain(name)}: {_plain(what)}" for name, what in systems.items()))
    write_file(folder / FILE, "\n\n".join(parts) + "\n")
