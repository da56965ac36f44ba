"""Sweeps of a system's knobs: transfer against fidelity of each combination, the front, and the point to work at.

The rule of the operating point (:func:`choose`): transfer and fidelity are each put on a scale from 0 (the floor: what
``no_op`` transfers, what ``text_only`` keeps; without these systems the least of the points) to 1 (the best of the
points). The point with the highest harmonic mean of the two is chosen: it needs both, and neither can buy the other.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from scipy import stats

from apa_lightning.editing.defaults import KNOBS as STORED
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.evaluation.rows import KNOBS, EvaluationRow, columns_of, metrics_of, systems_of, tasks_of
from apa_lightning.evaluation.summary import average, family_of, values_of
from apa_lightning.evaluation.tasks import POINT
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.bootstrap import Interval, resampled
from apa_lightning.utils.pretrained import EDIT_DEFAULTS_FILE

#: The knobs of the adapter's operating point, in the order of an overlay.
OVERLAY = tuple(name for name in POINT if name != "strength")
#: What is swept, and the knobs that are numbers.
FAMILIES = {
    "adapter": tuple(name for name in OVERLAY if name not in ("freq_pooling", "scheduler", "audio_prompts")),
    "sdedit": ("strength",),
}
#: As the paper writes the knobs.
SYMBOLS = {
    name: f"{symbol} ({name})" if (symbol := EditSettings.symbol(name)) else name for name in FAMILIES["adapter"]
} | {"strength": "SDEdit (strength)"}


@dataclass(frozen=True)
class Point:
    """One combination of knobs.

    Attributes:
        system: its name in the rows. knobs: by ``rows.KNOBS``, without the seed.
        transfer, fidelity: means with intervals over sources. edits: how many.
        why: of a chosen point, how it was chosen.
    """

    system: str
    knobs: dict[str, Any]
    transfer: Interval
    fidelity: Interval
    edits: int
    why: str = ""


class Correlation(NamedTuple):
    """Spearman's rank correlation of a knob with a metric over edits, its 95 % interval over sources."""

    family: str
    knob: str
    metric: str
    interval: Interval
    edits: int


def points(
    rows: Sequence[EvaluationRow], task: str, transfer: str = "clap", fidelity: str = "chroma", seed: int = 0,
    family: str = "adapter",
) -> list[Point]:  # fmt: skip
    """The combinations of one task at which both metrics were measured; the system without a suffix is one of them.

    Args:
        rows: Rows of an evaluation.
        task: Name of the task.
        transfer: Name of a metric that is better when higher.
        fidelity: Name of a metric that is better when higher.
        seed: Seed of the intervals.
        family: The swept system.

    Raises:
        InputError: If ``transfer`` or ``fidelity`` is not a metric, or is better when lower.
    """
    for name in (transfer, fidelity):
        if rows and not (name in columns_of(rows) and columns_of(rows)[name].higher_is_better):
            known = ", ".join(name for name, column in columns_of(rows).items() if column.higher_is_better)
            raise InputError(f"sweep: {name!r} is not a metric that is better when higher. Choose from {known}.")
    found: list[Point] = []
    rows = [row for row in rows if row.task == task and family_of(row.system) == family]
    for system in systems_of(rows):
        knobs = knobs_of(next(row for row in rows if row.system == system))
        if any(point.knobs == knobs for point in found):
            continue  # a grid may hold the system's own values again
        moved = average(values_of(rows, system, transfer), seed)
        kept = average(values_of(rows, system, fidelity), seed)
        if moved.edits and kept.edits:
            found.append(Point(system, knobs, moved.interval, kept.interval, min(moved.edits, kept.edits)))
    return found


def knobs_of(row: EvaluationRow) -> dict[str, Any]:
    """A row's knobs but the seed; ``freq_pooling`` only where it is not as ``time_pooling``."""
    knobs = {name: row.knobs[name] for name in KNOBS if row.knobs.get(name) is not None and name != "seed"}
    if "freq_pooling" in knobs and knobs["freq_pooling"] == knobs.get("time_pooling"):
        del knobs["freq_pooling"]
    return knobs


def pareto(found: Sequence[Point]) -> list[Point]:
    """The points that no other beats in one mean without losing in the other, by rising transfer."""

    def beaten(point: Point) -> bool:
        mine = (point.transfer.mean, point.fidelity.mean)
        theirs = [(other.transfer.mean, other.fidelity.mean) for other in found]
        return any(other != mine and other[0] >= mine[0] and other[1] >= mine[1] for other in theirs)

    return sorted((point for point in found if not beaten(point)), key=lambda point: point.transfer.mean)


def choose(
    found: Sequence[Point], transfer_floor: float = math.nan, fidelity_floor: float = math.nan
) -> Point | None:  # fmt: skip
    """The operating point by the module's rule, with ``why``; ``None`` without points.

    Args:
        found: Points of one task.
        transfer_floor: Mean of ``no_op``; NaN for unknown.
        fidelity_floor: Mean of ``text_only``; NaN for unknown.
    """
    if not found:
        return None
    transfer, low_transfer = _shares([point.transfer.mean for point in found], transfer_floor)
    fidelity, low_fidelity = _shares([point.fidelity.mean for point in found], fidelity_floor)
    both = np.where(transfer + fidelity > 0, 2 * transfer * fidelity / np.maximum(transfer + fidelity, 1e-12), 0.0)
    i = int(np.argmax(both))
    sources = "no_op", "text_only"
    floors = [
        f"{value:.3f} ({name if math.isfinite(given) else 'the least of the points'})"
        for value, name, given in zip(
            (low_transfer, low_fidelity), sources, (transfer_floor, fidelity_floor), strict=True
        )
    ]
    why = (
        f"the highest harmonic mean ({both[i]:.3f}) of transfer ({transfer[i]:.2f} of the way from its floor "
        f"{floors[0]} to the best point) and fidelity ({fidelity[i]:.2f} of the way from its floor {floors[1]} to the "
        f"best point) among {len(found)} combinations"
    )
    return replace(found[i], why=why)


def operating_point(
    rows: Sequence[EvaluationRow], task: str, transfer: str = "clap", fidelity: str = "chroma", seed: int = 0
) -> Point | None:
    """:func:`choose` among the adapter's points of a task, with the floors that the rows have.

    Returns:
        ``None`` if the adapter was not swept in this task.
    """
    found = points(rows, task, transfer, fidelity, seed)
    here = [row for row in rows if row.task == task]
    floors = [
        average(values_of(here, system, name), seed).interval.mean
        for system, name in (("no_op", transfer), ("text_only", fidelity))
    ]
    return choose(found, *floors) if len(found) > 1 else None


def _shares(means: Sequence[float], floor: float) -> tuple[np.ndarray, float]:
    """Where each mean lies between the floor (0) and the highest (1), and the floor."""
    values = np.asarray(means)
    floor = floor if math.isfinite(floor) else float(values.min())
    span = values.max() - floor
    return (np.clip((values - floor) / span, 0, 1) if span > 0 else np.zeros(len(values))), floor


def overlay(point: Point) -> dict[str, Any]:
    """The knobs of a point that ``predict`` and ``evaluate`` take as a task's operating point."""
    return {name: point.knobs[name] for name in OVERLAY if name in point.knobs}


def write_operating_point(path: Path, point: Point) -> Path:
    """Write a point as an overlay: ``--config PATH`` of ``predict`` and ``evaluate``. Returns ``path``."""
    knobs = overlay(point)
    lines = [
        f"# The operating point that a sweep chose: {point.system}.",
        f"# Rule: {point.why or 'chosen by hand'}.",
        *(
            f"# {name}: {value.mean:.3f} (95 % interval over sources {value.low:.3f} to {value.high:.3f})"
            for name, value in (("Transfer", point.transfer), ("Fidelity", point.fidelity))
        ),
        f"# Means of {point.edits} edits; points whose intervals overlap are not told apart.",
    ]
    text = "\n".join(lines) + "\n" + yaml.safe_dump({"data": {"init_args": knobs}}, sort_keys=False)
    write_file(path, text)
    return path


def write_operating_points(folder: Path, rows: Sequence[EvaluationRow], seed: int = 0) -> list[Path]:
    """Write ``operating_point_<task>.yaml`` for each task in which the adapter was swept (CLAP against chroma).

    An ``edit_defaults.yaml`` has all of them, as they can be stored with the backbone.
    """
    found = {task: operating_point(rows, task, seed=seed) for task in tasks_of(rows)}
    chosen = {task: point for task, point in found.items() if point is not None}
    if chosen:
        write_edit_defaults(folder / EDIT_DEFAULTS_FILE, chosen)
    return [write_operating_point(folder / f"operating_point_{task}.yaml", point) for task, point in chosen.items()]


def write_edit_defaults(path: Path, chosen: Mapping[str, Point]) -> None:
    """Write the points of tasks as the defaults of a backbone, with those of the first task in general."""
    stored = {
        task: {name: value for name, value in overlay(point).items() if name in STORED}
        for task, point in chosen.items()
    }
    lines = [f"# {task}: {point.system}, {point.why or 'chosen by hand'}." for task, point in chosen.items()]
    about = "# Defaults of edits from a sweep: --model.edit_defaults FILE, or a copy of this file in the folder of the backbone.\n"
    content = {**copy.deepcopy(next(iter(stored.values()))), "tasks": stored}  # a copy, so that YAML has no aliases
    write_file(path, about + "\n".join(lines) + "\n" + yaml.safe_dump(content, sort_keys=False))


def is_number(value: object) -> bool:
    """Whether a knob's value can be put on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def only_differs_in(knob: str, knobs: Mapping[str, Any], base: Mapping[str, Any]) -> bool:
    """Whether ``knobs`` has a number for ``knob`` and all others as ``base``."""
    others = {*knobs, *base} - {knob}
    return is_number(knobs.get(knob)) and all(knobs.get(name) == base.get(name) for name in others)


def curve(found: Sequence[Point], knob: str, base: Mapping[str, Any]) -> list[Point]:
    """The points that differ from ``base`` in ``knob`` alone, by its value; empty if it was not varied."""
    line = {point.knobs[knob]: point for point in found if only_differs_in(knob, point.knobs, base)}
    return [line[value] for value in sorted(line)] if len(line) > 1 else []


def varied(rows: Sequence[EvaluationRow], task: str, knob: str, family: str = "adapter") -> list[EvaluationRow]:
    """The rows of one task in which ``knob`` alone is varied around the system's own values.

    A grid without the system itself has no such values: then all its rows are meant. Empty if there is but one value.
    """
    rows = [row for row in rows if row.task == task and family_of(row.system) == family]
    base = next((knobs_of(row) for row in rows if row.system == family), None)
    chosen = [
        row
        for row in rows
        if (is_number(row.knobs.get(knob)) if base is None else only_differs_in(knob, knobs_of(row), base))
    ]
    once = {(row.id, row.knobs[knob]): row for row in reversed(chosen)}  # a grid may hold the system's own value again
    return list(reversed(once.values())) if len({value for _, value in once}) > 1 else []


def correlations(rows: Sequence[EvaluationRow], task: str, seed: int = 0) -> list[Correlation]:
    """Spearman's correlation of each knob that was varied with each metric that was measured, floors left out."""
    found = []
    for family, knobs in FAMILIES.items():
        for knob in knobs:
            along = varied(rows, task, knob, family)
            for metric in metrics_of(along):
                known = [row for row in along if math.isfinite(row.score(metric))]
                values = np.array([(row.knobs[knob], row.score(metric)) for row in known], dtype=np.float64)
                if len(known) < 3 or any(len(np.unique(column)) < 2 for column in values.T):
                    continue  # a constant has no ranks
                interval = spearman(values[:, 0], values[:, 1], [row.source for row in known], seed)
                found.append(Correlation(family, knob, metric, interval, len(known)))
    return found


def spearman(x: np.ndarray, y: np.ndarray, sources: Sequence[str], seed: int = 0) -> Interval:
    """Spearman's correlation as ``scipy.stats.spearmanr``, and its 95 % interval from resampled sources.

    Args:
        x: One value per edit (N,), not constant.
        y: One value per edit (N,), not constant.
        sources: Recording of each edit.
        seed: Seed of the draws.
    """
    names, number, counts = np.unique(sources, return_inverse=True, return_counts=True)
    place = np.concatenate([np.arange(count) for count in counts])[np.argsort(np.argsort(number, kind="stable"))]
    edits = np.full((2, len(names), counts.max()), np.nan)  # NaN where a source has fewer edits than another
    edits[:, number, place] = x, y

    def correlation(drawn: np.ndarray) -> np.ndarray:
        ranks = stats.rankdata(edits[:, drawn].reshape(2, *drawn.shape[:-1], -1), axis=-1, nan_policy="omit")
        first, second = ranks - np.nanmean(ranks, axis=-1, keepdims=True)
        scale = np.sqrt(np.nansum(first**2, axis=-1) * np.nansum(second**2, axis=-1))
        with np.errstate(invalid="ignore"):  # a draw may hold a single value
            return np.nansum(first * second, axis=-1) / scale

    return resampled(correlation, len(names), seed)
