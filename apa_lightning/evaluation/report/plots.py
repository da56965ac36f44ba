"""Plots of an evaluation: transfer against fidelity, paired differences, FAD-infinity, sweeps.

Each function returns a matplotlib figure, or ``None`` where nothing was measured. Text is drawn as it is, without TeX.
"""

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from apa_lightning.evaluation.rows import EvaluationRow, systems_of, tasks_of, title_of
from apa_lightning.evaluation.summary import average, compared, differences, values_of
from apa_lightning.evaluation.sweep import FAMILIES, SYMBOLS, Point, curve, operating_point, pareto, points
from apa_lightning.utils.atomic_files import atomic_path
from apa_lightning.utils.bootstrap import Interval

INK = "#24292f"  # of all text and lines; in the report it becomes the page's own color
#: After Okabe and Ito, with two more.
COLORS = ("#1b86c9", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
MARKERS = "os^Dv*PX"
STYLE: dict[Any, Any] = {
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",
}
DIFFERENCES = ("clap", "recognised", "chroma", "melody")


@matplotlib.rc_context(STYLE)
def trade_off(
    rows: Sequence[EvaluationRow], transfer: str = "clap", fidelity: str = "chroma", seed: int = 0
) -> Figure | None:
    """Transfer against fidelity of each system with 95 % intervals, one panel per task; sweeps are left out."""
    rows = compared(rows)
    systems = systems_of(rows)
    found: dict[str, dict[int, list[Interval]]] = {}
    for task in tasks_of(rows):
        here = [row for row in rows if row.task == task]
        for i, system in enumerate(systems):
            pair = [average(values_of(here, system, metric), seed) for metric in (transfer, fidelity)]
            if all(mean.edits for mean in pair):
                found.setdefault(task, {})[i] = [mean.interval for mean in pair]
    if not found:
        return None
    figure, axes = _panels(len(found), height=3.8)
    for axis, (task, pairs) in zip(axes, found.items(), strict=True):
        for i, (x, y) in pairs.items():
            axis.errorbar(x.mean, y.mean, _spread([y]), _spread([x]), ms=6, label=systems[i], ls="", **_mark(i))
        axis.set_title(task)
        _label(axis, title_of(rows, transfer), title_of(rows, fidelity))
    return _finished(figure)


@matplotlib.rc_context(STYLE)
def paired_differences(rows: Sequence[EvaluationRow], reference: str, seed: int = 0) -> Figure | None:
    """Each system less ``reference`` on the same edits, one panel per metric, one mark per task."""
    rows = compared(rows)
    found = differences(rows, reference, seed)
    metrics = [metric for metric in DIFFERENCES if any(key[2] == metric for key in found)]
    systems = [system for system in systems_of(rows) if any(key[1] == system for key in found)]
    if not metrics or not systems:
        return None
    tasks = tasks_of(rows)
    figure, axes = _panels(len(metrics), height=0.9 + 0.5 * len(systems), sharey=True)
    for axis, metric in zip(axes, metrics, strict=True):
        axis.axvline(0, color=INK, lw=0.8)
        for i, task in enumerate(tasks):
            shift = (i - (len(tasks) - 1) / 2) * 0.2
            known = {
                y + shift: found[task, system, metric].interval
                for y, system in enumerate(systems)
                if (task, system, metric) in found
            }
            if known:
                x = [interval.mean for interval in known.values()]
                spread = _spread(known.values())
                axis.errorbar(x, list(known), xerr=spread, ms=4, capsize=2, label=task, ls="", **_mark(i))
        axis.set_yticks(range(len(systems)), systems)
        axis.set_xlabel(f"{title_of(rows, metric)}: less {reference}")
        axis.grid(alpha=0.25, axis="x")
    axes[0].set_ylim(len(systems) - 0.5, -0.5)  # as in the tables, the first on top
    return _finished(figure)


@matplotlib.rc_context(STYLE)
def fad_infinity(set_metrics: Sequence[dict[str, Any]]) -> Figure | None:
    """The FAD of growing numbers of edits N against 1 / N, and the line whose value at 0 is FAD-infinity."""
    fits = [entry for entry in set_metrics if entry["metric"] == "fad_infinity" and len(entry.get("fit") or []) > 1]
    if not fits:
        return None
    tasks = list(dict.fromkeys(entry["task"] for entry in fits))
    systems = list(dict.fromkeys(entry["system"] for entry in fits))
    figure, axes = _panels(len(tasks), height=3.6)
    for axis, task in zip(axes, tasks, strict=True):
        for entry in (entry for entry in fits if entry["task"] == task):
            mark = _mark(systems.index(entry["system"]))
            x, y = np.array(entry["fit"], dtype=np.float64).T
            ends = np.array([0.0, x.max()])
            axis.plot(x, y, ms=4, label=entry["system"], ls="", **mark)
            axis.plot(ends, np.polyval(np.polyfit(x, y, 1), ends), color=mark["color"], lw=1)
        axis.set_title(task)
        axis.set_xlabel("1 / number of edits")
        axis.set_ylabel("FAD")
        axis.grid(alpha=0.25)
    return _finished(figure)


@matplotlib.rc_context(STYLE)
def sweep(
    rows: Sequence[EvaluationRow], task: str, transfer: str = "clap", fidelity: str = "chroma", seed: int = 0
) -> Figure | None:
    """Fig. 2 of the paper: one curve per knob with 95 % intervals, the front of the adapter's points, the chosen point."""
    found = {family: points(rows, task, transfer, fidelity, seed, family) for family in FAMILIES}
    chosen = operating_point(rows, task, transfer, fidelity, seed)
    lines = [
        (knob, line)
        for family, knobs in FAMILIES.items()
        for knob in knobs
        if (line := curve(found[family], knob, _base(found[family], family, chosen)))
    ]
    if not lines and chosen is None:
        return None
    figure = Figure(figsize=(7.2, 5.0), layout="constrained")
    axis = figure.subplots()
    off = [point for point in found["adapter"] if not any(point in line for _, line in lines)]
    axis.plot(*_means(off), ".", color=COLORS[-1], label="other combinations" if off else None)
    for i, (knob, line) in enumerate(lines):
        xerr, yerr = _spread(point.transfer for point in line), _spread(point.fidelity for point in line)
        axis.errorbar(*_means(line), yerr, xerr, ms=4, elinewidth=0.6, label=SYMBOLS[knob], **_mark(i))
        for point in line:
            at = (point.transfer.mean, point.fidelity.mean)
            axis.annotate(f"{point.knobs[knob]:g}", at, (4, 4), textcoords="offset points", fontsize=7)
    if len(found["adapter"]) > 1:
        axis.plot(*_means(pareto(found["adapter"])), ":", color=INK, lw=1.2, label="front of the adapter's points")
    if chosen is not None:
        axis.plot(*_means([chosen]), "o", ms=14, mfc="none", mec=INK, mew=1.6, label=f"chosen: {chosen.system}")
    _label(axis, title_of(rows, transfer), title_of(rows, fidelity))
    return _finished(figure)


def _base(found: Sequence[Point], family: str, chosen: Point | None) -> dict[str, Any]:
    """The knobs that a curve keeps constant: those of the system itself, else of the chosen point, else of the first."""
    preferred = {family: 0} | ({chosen.system: 1} if chosen is not None and chosen.system != family else {})
    return next((point.knobs for point in sorted(found, key=lambda point: preferred.get(point.system, 2))), {})


def _means(found: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.transfer.mean for point in found], [point.fidelity.mean for point in found]


def _spread(intervals: Iterable[Interval]) -> np.ndarray:
    """How far each interval reaches below and above its mean, of shape (2, N)."""
    mean, low, high = np.array(list(intervals)).T
    return np.maximum([mean - low, high - mean], 0.0)


def _mark(i: int) -> dict[str, Any]:
    """Marker, color and line width of the system, task or knob number ``i``."""
    return {"marker": MARKERS[i % 8], "color": COLORS[i % 8], "lw": 1.2}


def _panels(count: int, height: float, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(max(5.0, 3.6 * count), height + 0.5), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False, sharey=sharey)[0])


def _label(axis: Axes, transfer: str, fidelity: str) -> None:
    axis.set_xlabel(f"{transfer} (transfer)")
    axis.set_ylabel(f"{fidelity} (fidelity)")
    axis.grid(alpha=0.25)


def _finished(figure: Figure) -> Figure:
    """The figure with one legend for all panels, below them."""
    entries: dict[str, Any] = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    columns = max(1, math.floor(figure.get_size_inches()[0] / 2.4))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=min(len(entries), columns))
    return figure


@matplotlib.rc_context(STYLE)
def save_png(figure: Figure, path: Path) -> None:
    """Write a plot on a white background."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=130, facecolor="white")


def as_svg(figure: Figure, name: str) -> str:
    """The plot as an ``<svg>`` element without a background, its text in the page's own color.

    Args:
        figure: A plot.
        name: Unique among the plots of the page; keeps the ids of their elements apart.
    """
    text = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    return svg[svg.index("<svg") :].replace(INK, "currentColor")
