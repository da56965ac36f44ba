"""``report.html``: tables, plots and a listening page of an evaluation, in one file next to its audio."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from matplotlib.figure import Figure

from apa_lightning.errors import InputError
from apa_lightning.evaluation.report import plots
from apa_lightning.evaluation.report.findings import NOT_MEASURED, OPPOSITE, SHOWN, figure, findings
from apa_lightning.evaluation.report.tables import NOTHING, Table, correlation_table, number, tables
from apa_lightning.evaluation.rows import EvaluationRow, columns_of, metrics_of, systems_of, tasks_of
from apa_lightning.evaluation.summary import compared, family_of
from apa_lightning.evaluation.sweep import operating_point, overlay
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.templates import render

FILE = "report.html"
#: Metrics shown with each player; the others appear on demand.
MAIN = ("clap", "chroma", "melody", "recognised")
#: Entries of ``evaluation.json`` that the page shows, with their labels.
ABOUT = {
    "set": "set", "sources": "sources", "tasks": "tasks", "seed": "seed", "backbone": "backbone", "adapter": "adapter",
    "clap": "CLAP", "embedding": "embedding of FAD and KAD", "reference": "reference of FAD and KAD",
    "versions": "versions", "command": "command",
}  # fmt: skip
VERDICT_CLASSES = {SHOWN: "verdict shown", OPPOSITE: "verdict opposite"}


@dataclass(frozen=True)
class Section:
    """A part of the page: its heading, the template that shows it, and what the template shows."""

    title: str
    template: str
    content: Any

    @property
    def key(self) -> str:
        """The address of the section within the page."""
        return self.title.lower().replace(" ", "-")


def write_report(
    folder: Path, rows: list[EvaluationRow], set_metrics: list[dict], about: dict, reference: str | None = None
) -> Path:
    """Write ``report.html`` and ``plots/*.png``.

    Args:
        folder: Output folder of the evaluation, with the audio files that the rows name.
        rows: Content of its ``results.csv``.
        set_metrics: Content of its ``set_metrics.json``.
        about: Content of its ``evaluation.json``; may be empty. Its ``seed`` is the seed of the intervals.
        reference: System that the others are compared with on the same edits. By default the adapter, else the first system.

    Returns:
        The path of the report.

    Raises:
        InputError: If no row has the system ``reference``.
    """
    seed = int(about.get("seed") or 0)
    systems = systems_of(compared(rows))
    if reference is not None and reference not in systems:
        raise InputError(f"reference: no row has the system {reference!r}. Choose from {', '.join(systems)}.")
    reference = reference or ("adapter" if "adapter" in systems else next(iter(systems), ""))
    first, *others = tables(rows, set_metrics, about, seed) or [Table("Table 1", (), [], [], (NOTHING,))]
    found = findings(rows, seed)
    measured = any(finding.verdict != NOT_MEASURED for finding in found)
    sections = [
        Section(first.title, "table.html.j2", first),
        Section("Findings", "findings.html.j2", found if measured else []),
        Section("Plots", "plots.html.j2", _plots(folder, rows, set_metrics, reference, seed)),
        Section("Sweep", "sweeps.html.j2", _sweeps(folder, rows, seed)),
        *(Section(table.title, "table.html.j2", table) for table in others),
        Section("Listen", "listening.html.j2", {"edits": _edits(folder, rows), "filters": _filters(rows)}),
    ]
    text = render(
        __package__,
        "report.html.j2",
        title=f"Evaluation: {about['set']}" if about.get("set") else "Evaluation",
        about=_about(about),
        sections=[section for section in sections if section.content],
        verdict_classes=VERDICT_CLASSES,
        figure=figure,
    )
    path = folder / FILE
    write_file(path, text)
    return path


def _about(about: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What was evaluated, by heading and label; systems have a heading of their own."""
    facts = {label: _as_text(about[name]) for name, label in ABOUT.items() if about.get(name) not in (None, "", [], {})}
    systems = {name: what for name, what in (about.get("systems") or {}).items() if family_of(name) == name}
    return {heading: pairs for heading, pairs in (("", facts), ("Systems", systems)) if pairs}


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {of}" for name, of in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _drawn(folder: Path, name: str, figure: Figure | None) -> Markup | None:
    """Save a plot as ``plots/<name>.png`` and return its SVG; without a plot, remove the file of an earlier evaluation."""
    path = folder / "plots" / f"{name}.png"
    if figure is None:
        path.unlink(missing_ok=True)
        return None
    plots.save_png(figure, path)
    return Markup(plots.as_svg(figure, name))


def _plots(
    folder: Path, rows: list[EvaluationRow], set_metrics: list[dict], reference: str, seed: int
) -> list[dict[str, Any]]:
    """Title, SVG and the sentence for a missing plot, of each plot of compared systems."""
    wanted = [
        ("trade_off", "Transfer against fidelity", plots.trade_off(rows, seed=seed),
         "CLAP against chroma needs both metrics of the same system, and they were not measured."),
        ("differences", f"Each system less {reference or 'a reference'}, on the same edits",
         plots.paired_differences(rows, reference, seed), "There are no two systems to compare."),
        ("fad_infinity", "FAD-infinity", plots.fad_infinity(set_metrics),
         "FAD-infinity was not measured: too few edits, or skipped."),
    ]  # fmt: skip
    return [
        {"title": title, "svg": _drawn(folder, name, figure), "missing": missing}
        for name, title, figure, missing in wanted
    ]


def _sweeps(folder: Path, rows: list[EvaluationRow], seed: int) -> list[dict[str, Any]]:
    """Curves, chosen point and correlations of each task that was swept."""
    swept = {row.task for row in rows if family_of(row.system) != row.system}
    measured = {"clap", "chroma"} <= columns_of(rows).keys()
    found = []
    for task in (task for task in tasks_of(rows) if task in swept):
        point = operating_point(rows, task, seed=seed) if measured else None
        found.append(
            {
                "task": task,
                "svg": _drawn(folder, f"sweep_{task}", plots.sweep(rows, task, seed=seed) if measured else None),
                "point": point,
                "knobs": _as_text(overlay(point)) if point else "",
                "correlations": correlation_table(rows, task, seed),
            }
        )
    return found


def _filters(rows: Sequence[EvaluationRow]) -> dict[str, dict[str, str]]:
    """The values by which the listening part can be filtered, with their labels."""
    filters = {
        name: {"": "all", **{value: value for row in rows if (value := getattr(row, name))}}
        for name in ("task", "instrument", "target", "system")
    }
    if any(family_of(system) != system for system in filters["system"]):
        filters["system"] = {"": "all", "*": "all, and all points of the sweeps", **filters["system"]}
    return filters


def _edits(folder: Path, rows: list[EvaluationRow]) -> list[dict[str, Any]]:
    """The edits for the listening part, grouped by task; a row whose output is the source itself is not shown as a system."""
    edits: dict[tuple[str, str], dict[str, Any]] = {}
    order = tasks_of(rows)
    for row in sorted(rows, key=lambda row: order.index(row.task)):
        edit = edits.setdefault((row.task, row.id), {
            "title": f"{row.task}: {row.id}", "task": row.task, "instrument": row.instrument, "target": row.target,
            "source": row.source, "audio": _address(folder, row.audio), "systems": [],
            "prompt": f"“{row.prompt}”" + (f", not “{row.negative_prompt}”" if row.negative_prompt else ""),
        })  # fmt: skip
        if row.output != row.audio:
            swept = family_of(row.system) != row.system
            edit["systems"].append(
                {"name": row.system, "audio": _address(folder, row.output), "scores": _scores(row), "swept": swept}
            )
    return list(edits.values())


def _address(folder: Path, path: str) -> str:
    """The path as an address relative to the report; empty if the file does not exist."""
    return quote(path) if path and (folder / path).is_file() else ""


def _scores(row: EvaluationRow) -> list[tuple[str, str, bool]]:
    """Title, value (with its floor) and whether it is a main metric, of each metric that was measured."""
    found = []
    for name in sorted(metrics_of([row]), key=lambda name: MAIN.index(name) if name in MAIN else len(MAIN)):
        value, floor = row.score(name), row.score(row.columns[name].floor)
        if math.isfinite(value):
            text = ("yes" if value else "no") if name == "recognised" else number(value)
            text += f" (floor {number(floor)})" if math.isfinite(floor) else ""
            found.append((row.columns[name].title, text, name in MAIN))
    return found
