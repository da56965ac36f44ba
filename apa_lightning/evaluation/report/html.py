"""``report.html``: tables, plots and a listening page of an evaluation, in one file beside its audio."""

import html
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib.figure import Figure

from apa_lightning.errors import InputError
from apa_lightning.evaluation.report import plots
from apa_lightning.evaluation.report.findings import NOT_MEASURED, OPPOSITE, SHOWN, Finding, figure, findings
from apa_lightning.evaluation.report.page import SCRIPT, STYLE
from apa_lightning.evaluation.report.tables import NOTHING, Cell, Table, as_html, number, tables
from apa_lightning.evaluation.rows import METRICS, Row, systems_of, tasks_of
from apa_lightning.evaluation.summary import compared, family_of
from apa_lightning.evaluation.sweep import SYMBOLS, correlations, operating_point, overlay
from apa_lightning.utils.atomic_files import atomic_path

FILE = "report.html"
PAGE = 10  # edits that the listening part shows at a time
#: Figures beside each player; the others appear on demand.
MAIN = ("clap", "chroma", "melody", "recognised")
ABOUT = {
    "set": "set", "sources": "sources", "tasks": "tasks", "seed": "seed", "backbone": "backbone", "adapter": "adapter",
    "clap": "CLAP", "embedding": "embedding of FAD and KAD", "reference": "reference of FAD and KAD",
    "versions": "versions", "command": "command",
}  # fmt: skip


def write_report(
    folder: Path, rows: list[Row], set_metrics: list[dict], about: dict, reference: str | None = None
) -> Path:
    """Write ``report.html`` and ``plots/*.png`` into ``folder``.

    Args:
        folder: of the evaluation, with the audio files that the rows name. rows: its ``results.csv``.
        set_metrics: its ``set_metrics.json``. about: its ``evaluation.json``; may be empty. Its ``seed`` is that of the
            intervals.
        reference: the system that paired differences are taken from; ``None``: the adapter, else the first.

    Returns:
        The path of the report.

    Raises:
        InputError: no row is of the system ``reference``.
    """
    seed = int(about.get("seed") or 0)
    systems = systems_of(compared(rows))
    if reference is not None and reference not in systems:
        raise InputError(f"reference: no row is of the system {reference!r}. Choose from {', '.join(systems)}.")
    reference = reference or ("adapter" if "adapter" in systems else next(iter(systems), ""))
    draw = _Drawing(folder / "plots")
    first, *others = tables(rows, set_metrics, about, seed) or [Table("Table 1", (), [], [], (NOTHING,))]
    sections = {
        first.title: as_html(first),
        "Findings": _findings(findings(rows, seed)),
        "Plots": _plots(draw, rows, set_metrics, reference, seed),
        "Sweep": _sweeps(draw, rows, seed),
        **{table.title: as_html(table) for table in others},
        "Listen": _listening(folder, rows),
    }
    sections = {title: content for title, content in sections.items() if content}
    text = _page(about, sections)
    path = folder / FILE
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


class _Drawing:
    """Keeps plots as PNG files and gives their SVG."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, name: str, drawn: Figure | None, missing: str = "", single: bool = False) -> str:
        """The plot for the page, or in words that it is missing."""
        path = self.folder / f"{name}.png"
        if drawn is None:
            path.unlink(missing_ok=True)  # of an earlier evaluation in this folder
            return f"<p class=note>{html.escape(missing)}</p>" if missing else ""
        plots.save_png(drawn, path)
        return f'<div class="plot{" single" if single else ""}">{plots.as_svg(drawn, name)}</div>'


def _page(about: dict[str, Any], sections: dict[str, str]) -> str:
    title = f"Evaluation: {about['set']}" if about.get("set") else "Evaluation"
    parts = {name.lower().replace(" ", "-"): (name, content) for name, content in sections.items()}
    links = "".join(f'<a href="#{key}">{name}</a>' for key, (name, _) in parts.items())
    body = "".join(f"<h2 id={key}>{name}</h2>{content}" for key, (name, content) in parts.items())
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><nav>{links}</nav>{_about(about)}{body}</body></html>\n"
    )


def _about(about: dict[str, Any]) -> str:
    """What was evaluated; systems with their descriptions."""
    pairs = [(words, _words(about[name])) for name, words in ABOUT.items() if about.get(name) not in (None, "", [], {})]
    systems = [(name, what) for name, what in dict(about.get("systems") or {}).items() if family_of(name) == name]
    content = _pairs(pairs) + (f"<h3>Systems</h3>{_pairs(systems)}" if systems else "")
    return f"<details><summary>What was evaluated</summary>{content}</details>" if content else ""


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {of}" for name, of in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _pairs(pairs: Iterable[tuple[str, Any]]) -> str:
    inner = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd>" for name, value in pairs)
    return f"<dl class=about>{inner}</dl>" if inner else ""


def _plots(draw: _Drawing, rows: list[Row], set_metrics: list[dict], reference: str, seed: int) -> str:
    both = "needs two figures of the same system, and they were not measured."
    return (
        "<h3>Transfer against fidelity</h3>"
        + draw("trade_off", plots.trade_off(rows, seed=seed), f"CLAP against chroma {both}")
        + f"<h3>Each system less {html.escape(reference or 'a reference')}, on the same edits</h3>"
        + draw("differences", plots.paired_differences(rows, reference, seed), "There are no two systems to compare.")
        + "<h3>FAD-infinity</h3>"
        + draw("fad_infinity", plots.fad_infinity(set_metrics), "FAD-infinity was not measured: too few edits, or skipped.")
    )  # fmt: skip


def _sweeps(draw: _Drawing, rows: list[Row], seed: int) -> str:
    """Curves, the chosen point and correlations of each task that has points of grids; empty if none has."""
    parts = []
    for task in tasks_of(rows):
        if all(family_of(row.system) == row.system for row in rows if row.task == task):
            continue
        parts.append(f"<h3>{html.escape(task)}</h3>")
        parts.append(
            draw(f"sweep_{task}", plots.sweep(rows, task, seed=seed), "CLAP and chroma were not measured.", single=True)
        )
        if (point := operating_point(rows, task, seed=seed)) is not None:
            knobs = ", ".join(f"{name} {value}" for name, value in overlay(point).items())
            parts.append(
                f"<p>Operating point: <b>{html.escape(point.system)}</b> ({html.escape(knobs)}). "
                f"Rule: {html.escape(point.why)}. Points whose intervals overlap are not told apart.</p>"
            )
        parts.append(_correlations(rows, task, seed))
    return "".join(parts)


def _correlations(rows: list[Row], task: str, seed: int) -> str:
    found = {(of.knob, of.metric): of for of in correlations(rows, task, seed)}
    metrics = [metric for metric in METRICS if any(key[1] == metric for key in found)]
    lines: list[tuple[tuple[str, ...], list[Cell]]] = []
    for knob in dict.fromkeys(knob for knob, _ in found):
        cells = []
        for metric in metrics:
            of = found.get((knob, metric))
            cells.append(
                Cell("–")
                if of is None
                else Cell(f"{of.interval.mean:+.2f}", f"[{of.interval.low:+.2f}, {of.interval.high:+.2f}]")
            )
        lines.append(((SYMBOLS[knob],), cells))
    if not lines:
        return ""
    note = "Spearman's rank correlation of a knob with a figure over edits, one knob varied at a time; 95 % intervals over sources."
    return as_html(Table("", ("knob",), [("", METRICS[metric].title) for metric in metrics], lines, (note,)))


def _findings(found: Sequence[Finding]) -> str:
    """The findings of the paper, if one of them was measured."""
    if all(finding.verdict == NOT_MEASURED for finding in found):
        return ""
    parts = ["<p class=note>The paper's findings as these edits show them.</p>"]
    for finding in found:
        kind = {SHOWN: " shown", OPPOSITE: " opposite"}.get(finding.verdict, "")
        evidence = "".join(
            f"<tr><th>{html.escape(part.what)}</th><td>{html.escape(figure(part.mean))}</td><td>{part.says}</td></tr>"
            for part in finding.evidence
        )
        parts.append(
            f"<h3>({finding.letter}) {html.escape(finding.statement)} "
            f'<span class="verdict{kind}">{finding.verdict}</span></h3>'
            f"<p class=note>{html.escape(finding.rule)} {html.escape(finding.remark)}</p>"
            + (f"<div class=wide><table class=evidence><tbody>{evidence}</tbody></table></div>" if evidence else "")
        )
    return "".join(parts)


def _listening(folder: Path, rows: list[Row]) -> str:
    """Filters and the edits as JSON; the script makes the players."""
    if not rows:
        return "<p>There is nothing to listen to yet.</p>"
    options = {
        name: "".join(
            f'<option value="{html.escape(value)}">{html.escape(value)}</option>'
            for value in dict.fromkeys(getattr(row, name) for row in rows)
            if value
        )
        for name in ("task", "instrument", "target", "system")
    }
    every = "<option value=''>all</option>"
    swept = any(family_of(row.system) != row.system for row in rows)
    systems = every + ("<option value='*'>all, and all points of the sweeps</option>" if swept else "")
    selects = "".join(
        f"<label>{name}<select id=by-{name}>{systems if name == 'system' else every}{options[name]}</select></label>"
        for name in options
    )
    content = {"page": PAGE, "edits": _edits(folder, rows)}
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    safe = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return (
        f"<div class=filters>{selects}<label class=tick><input type=checkbox id=all> all figures</label>"
        "<span class=soft id=count></span></div><div id=list></div><button id=more hidden>Show more</button>"
        "<noscript>The players need JavaScript; the files lie in the folder audio.</noscript>"
        f"<script type=application/json id=edits>{safe}</script><script>{SCRIPT}</script>"
    )


def _edits(folder: Path, rows: list[Row]) -> list[dict[str, Any]]:
    """What the listening part says of each edit, tasks together; the system that is the source itself is no system."""
    edits: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row, order=tasks_of(rows): order.index(row.task)):  # type: ignore[misc]
        edit = edits.setdefault((row.task, row.id), {
            "title": f"{row.task}: {row.id}", "task": row.task, "instrument": row.instrument, "target": row.target,
            "source": row.source, "audio": _audio(folder, row.audio), "systems": [],
            "prompt": f"“{row.prompt}”" + (f", not “{row.negative_prompt}”" if row.negative_prompt else ""),
        })  # fmt: skip
        if row.output != row.audio:
            swept = family_of(row.system) != row.system
            edit["systems"].append(
                {"name": row.system, "audio": _audio(folder, row.output), "figures": _figures(row), "swept": swept}
            )
    return list(edits.values())


def _audio(folder: Path, path: str) -> str:
    """The path as an address relative to the report; empty if the file is not there."""
    return quote(path) if path and (folder / path).is_file() else ""


def _figures(row: Row) -> list[tuple[str, str, bool]]:
    """Title, value (with its floor) and whether it is shown at once, of what was measured."""
    found = []
    floors = {metric.floor for metric in METRICS.values()}
    for name in sorted((name for name in METRICS if name not in floors), key=lambda name: name not in MAIN):
        value, floor = row.figure(name), row.figure(METRICS[name].floor)
        if math.isfinite(value):
            beside = f" (floor {number(floor)})" if math.isfinite(floor) else ""
            said = ("yes" if value else "no") if name == "recognised" else number(value)
            found.append((METRICS[name].title, said + beside, name in MAIN))
    return found
