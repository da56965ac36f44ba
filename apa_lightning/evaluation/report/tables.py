"""The paper's Table 1 and a table of all other figures, from the rows of an evaluation."""

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from apa_lightning.evaluation.rows import METRICS, Row, systems_of, tasks_of
from apa_lightning.evaluation.summary import MEAN_OF_TASKS, UNKNOWN, compared, means
from apa_lightning.utils.atomic_files import atomic_path
from apa_lightning.utils.bootstrap import Interval

FILE = "table1.md"
#: The figures of sets, from ``set_metrics.json``; less is better.
SET_METRICS = {"fad": "FAD", "fad_infinity": "FAD-infinity", "kad": "KAD"}
TABLE_1 = ("clap", "chroma", "fad")
#: They change nothing or only code and decode: references that no figure is best of.
REFERENCES = ("no_op", "codec")
NONE = "–"
NOTHING = "No edits have been measured."


class Cell(NamedTuple):
    """A figure as it is shown: mean, interval and floor (either may be empty), and whether it is the best."""

    text: str
    interval: str = ""
    floor: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table to be shown: ``columns`` are (group, title); each row begins with its names."""

    title: str
    names: tuple[str, ...]
    columns: list[tuple[str, str]]
    rows: list[tuple[tuple[str, ...], list[Cell]]]
    notes: tuple[str, ...] = ()


class Figures:
    """All means of an evaluation, of edits and of sets, by (task, system, metric).

    Args:
        rows: of an evaluation; points of sweeps are left out. set_metrics: what ``set_metrics.json`` holds.
        seed: of the intervals.
    """

    def __init__(self, rows: Sequence[Row], set_metrics: Sequence[dict[str, Any]], seed: int = 0):
        rows = compared(rows)
        self.tasks, self.systems = tasks_of(rows), systems_of(rows)
        self.found = {key: mean.interval for key, mean in means(rows, seed).items()}
        self.found |= set_intervals(set_metrics)
        if len(self.tasks) > 1:
            self.found |= {(MEAN_OF_TASKS, *key): value for key, value in self._set_means().items()}

    def _set_means(self) -> dict[tuple[str, str], Interval]:
        """The mean of the tasks for a set's figure: no interval, for no two tasks share their draws."""
        found = {}
        for system in self.systems:
            for metric in SET_METRICS:
                values = [self.at(task, system, metric).mean for task in self.tasks]
                if all(map(math.isfinite, values)):
                    found[system, metric] = Interval(sum(values) / len(values), math.nan, math.nan)
        return found

    def at(self, task: str, system: str, metric: str) -> Interval:
        """A mean with its interval, all NaN where there is none."""
        return self.found.get((task, system, metric), UNKNOWN)

    def measured(self, metric: str) -> bool:
        """Whether any task and system has it."""
        return any(key[2] == metric for key in self.found)

    @property
    def groups(self) -> list[str]:
        """The tasks and, if there are several, their mean."""
        return [*self.tasks, MEAN_OF_TASKS] if len(self.tasks) > 1 else self.tasks

    def cell(self, task: str, system: str, metric: str) -> Cell:
        """One figure for a table; bold if it is the best of at least two systems that edit."""
        interval = self.at(task, system, metric)
        if not math.isfinite(interval.mean):
            return Cell(NONE)
        floor = METRICS[metric].floor if metric in METRICS else ""
        least = self.at(task, system, floor).mean if floor else math.nan
        return Cell(
            number(interval.mean),
            f"[{number(interval.low)}, {number(interval.high)}]" if math.isfinite(interval.low) else "",
            f"floor {number(least)}" if math.isfinite(least) else "",
            system not in REFERENCES and interval.mean == self._best(task, metric),
        )

    def _best(self, task: str, metric: str) -> float:
        means = [self.at(task, system, metric).mean for system in self.systems if system not in REFERENCES]
        means = [mean for mean in means if math.isfinite(mean)]
        higher = metric in METRICS and METRICS[metric].higher_is_better
        return math.nan if len(means) < 2 else max(means) if higher else min(means)


def set_intervals(set_metrics: Iterable[dict[str, Any]]) -> dict[tuple[str, str, str], Interval]:
    """The figures of sets by (task, system, metric), where they have a value."""
    return {
        (entry["task"], entry["system"], entry["metric"]): Interval(
            *(math.nan if entry.get(name) is None else float(entry[name]) for name in ("value", "low", "high"))
        )
        for entry in set_metrics
        if entry.get("value") is not None
    }


def number(value: float) -> str:
    """Three decimals, or four digits of what is larger."""
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"


def title_of(metric: str) -> str:
    """How tables show a figure, with an arrow to its better side."""
    if metric in METRICS:
        return METRICS[metric].title + (" ↑" if METRICS[metric].higher_is_better else " ↓")
    return SET_METRICS[metric] + " ↓"


def tables(
    rows: Sequence[Row], set_metrics: Sequence[dict[str, Any]], about: dict[str, Any], seed: int = 0
) -> list[Table]:
    """Table 1, and the other figures by task and system; no table without rows."""
    figures = Figures(rows, set_metrics, seed)
    if not figures.systems:
        return []
    columns = [(group, metric) for group in figures.groups for metric in TABLE_1]
    first = Table(
        "Table 1",
        ("system",),
        [(group, title_of(metric)) for group, metric in columns],
        [((system,), [figures.cell(group, system, metric) for group, metric in columns]) for system in figures.systems],
        (
            f"CLAP: {_said(about, 'clap')}. FAD over embeddings of {_said(about, 'embedding')} against "
            f"{_said(about, 'reference')}. Set: {_said(about, 'set')}; sources: {_said(about, 'sources')}.",
            "Means with 95 % intervals over sources; of FAD as set_metrics.json gives them. The floor is the same figure "
            f"against another recording. Best in bold, where {' and '.join(REFERENCES)}, which edit nothing, do not "
            "compete.",
        ),
    )
    floors = {metric.floor for metric in METRICS.values()}
    others = [metric for metric in (*METRICS, *SET_METRICS) if metric not in {*TABLE_1, *floors}]
    shown = [metric for metric in others if figures.measured(metric)]
    second = Table(
        "All other figures",
        ("task", "system"),
        [("", title_of(metric)) for metric in shown],
        [
            ((group, system), [figures.cell(group, system, metric) for metric in shown])
            for group in figures.groups
            for system in figures.systems
        ],
        tuple(_missing(figures, [*TABLE_1, *others], set_metrics, about)),
    )
    return [first, second] if shown else [first, Table(second.title, (), [], [], second.notes)]


def _said(about: dict[str, Any], name: str) -> str:
    return str(about.get(name) or "not said")


def _missing(
    figures: Figures, wanted: Sequence[str], set_metrics: Sequence[dict[str, Any]], about: dict[str, Any]
) -> list[str]:
    """Why there is no number: metrics that were skipped, that nobody has, and figures of sets without a value."""
    skipped = dict(about.get("skipped_metrics") or {})
    notes = [f"Skipped: {name}: {why}" for name, why in skipped.items()]
    titles = [title_of(name)[:-2] for name in wanted if not figures.measured(name) and name not in skipped]
    absent = [title for title in titles if title not in skipped]
    notes += [f"Not measured: {', '.join(absent)}."] if absent else []
    reasons: dict[str, list[str]] = {}
    for entry in set_metrics:
        if entry.get("value") is None and entry["metric"] not in skipped:
            why = f"{SET_METRICS.get(entry['metric'], entry['metric'])}: {entry.get('why') or 'no reason given'}"
            reasons.setdefault(why, []).append(f"{entry['task']} {entry['system']}")
    return notes + [f"{why} ({', '.join(where)})" for why, where in reasons.items()]


def as_markdown(table: Table) -> str:
    """The table in Markdown, with its notes."""
    lines = [f"## {table.title}"]
    if table.columns:
        heads = [*table.names, *(f"{group} {title}".strip() for group, title in table.columns)]
        grid = ["| " + " | ".join(map(_plain, heads)) + " |", "|" + "---|" * len(heads)]
        for names, cells in table.rows:
            texts = [f"**{cell.text}**" if cell.best else cell.text for cell in cells]
            beside = [" ".join(filter(None, (cell.interval, cell.floor))) for cell in cells]
            shown = [f"{text} {more}".strip() for text, more in zip(texts, beside, strict=True)]
            grid.append("| " + " | ".join([*map(_plain, names), *shown]) + " |")
        lines.append("\n".join(grid))
    lines += [f"- {_plain(note)}" for note in table.notes]
    return "\n\n".join(lines[: 2 if table.columns else 1]) + "\n\n" + "\n".join(lines[2 if table.columns else 1 :])


def as_html(table: Table) -> str:
    """The table in HTML with its notes, all text escaped; groups of columns share a heading."""
    escape = html.escape
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in table.notes)
    if not table.columns:
        return notes
    groups: list[tuple[str, int]] = []
    for group, _ in table.columns:
        groups = (
            [*groups[:-1], (group, groups[-1][1] + 1)] if groups and groups[-1][0] == group else [*groups, (group, 1)]
        )
    rowspan = " rowspan=2" if len(groups) > 1 else ""
    heads = "".join(f"<th{rowspan}>{escape(name)}</th>" for name in table.names)
    titles = "".join(f"<th>{escape(title)}</th>" for _, title in table.columns)
    if rowspan:
        spans = "".join(f'<th class=group colspan="{span}">{escape(group)}</th>' for group, span in groups)
        head = f"<tr>{heads}{spans}</tr><tr>{titles}</tr>"
    else:
        head = f"<tr>{heads}{titles}</tr>"
    body = "".join(
        "<tr>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "".join(map(_html_cell, cells)) + "</tr>"
        for names, cells in table.rows
    )
    return f"<div class=wide><table><thead>{head}</thead><tbody>{body}</tbody></table></div>{notes}"


def _html_cell(cell: Cell) -> str:
    text = f"<b>{html.escape(cell.text)}</b>" if cell.best else html.escape(cell.text)
    more = "".join(f"<small>{html.escape(part)}</small>" for part in (cell.interval, cell.floor) if part)
    return f"<td>{text}{more}</td>"


def _plain(text: str) -> str:
    """Text that cannot end a cell of a Markdown table or begin a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def write_tables(folder: Path, rows: list[Row], set_metrics: list[dict], about: dict) -> None:
    """Write ``table1.md`` into ``folder``.

    Args:
        folder: of the evaluation. rows: its ``results.csv``. set_metrics: its ``set_metrics.json``.
        about: its ``evaluation.json``; may be empty. Its ``seed`` is that of the intervals.
    """
    made = tables(rows, set_metrics, about, int(about.get("seed") or 0))
    systems = dict(about.get("systems") or {})
    parts = ["# Evaluation", *(map(as_markdown, made) if made else [NOTHING])]
    if made and systems:
        parts.append("Systems:\n\n" + "\n".join(f"- {_plain(name)}: {_plain(what)}" for name, what in systems.items()))
    with atomic_path(folder / FILE) as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
