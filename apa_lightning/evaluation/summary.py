"""What the rows say: means with intervals per task and system, and differences of two systems on the same edits."""

import math
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from apa_lightning.evaluation.rows import METRICS, Row, systems_of, tasks_of
from apa_lightning.utils.bootstrap import DRAWS, Interval

#: Stands for a task: the mean of the tasks' means.
MEAN_OF_TASKS = "mean of tasks"
UNKNOWN = Interval(math.nan, math.nan, math.nan)
_SWEPT = re.compile(r"(\S+)(?: \S+=\S+)+")


class Value(NamedTuple):
    """One edit's figure, or its difference between two systems."""

    task: str
    source: str
    value: float


class Mean(NamedTuple):
    """A mean with its 95 % interval over sources, and of how many edits of how many sources it is."""

    interval: Interval
    edits: int
    sources: int


def family_of(system: str) -> str:
    """The system that is swept: "adapter" of "adapter ap_scale=0.2"; the name itself of any other."""
    match = _SWEPT.fullmatch(system)
    return match[1] if match else system


def compared(rows: Iterable[Row]) -> list[Row]:
    """The rows without the points of sweeps, which have a table and a plot of their own."""
    return [row for row in rows if family_of(row.system) == row.system]


@lru_cache(maxsize=16)
def resampling(sources: int, seed: int) -> np.ndarray:
    """How often each source is drawn (DRAWS, sources), with the draws of ``statistics.bootstrap_by_source``."""
    drawn = np.random.default_rng(seed).integers(sources, size=(DRAWS, sources))
    cells = drawn + sources * np.arange(DRAWS)[:, None]
    return np.bincount(cells.ravel(), minlength=DRAWS * sources).reshape(DRAWS, sources).astype(np.float64)


def between(mean: float, means: np.ndarray) -> Interval:
    """The interval of a mean from the means of resampled sources; draws that had nothing to average are NaN."""
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return Interval(float(mean), float(low), float(high))


def average(values: Iterable[Value], seed: int = 0) -> Mean:
    """The mean of the tasks' means; its interval resamples whole sources, the same ones in all tasks.

    For one task that is ``statistics.bootstrap_by_source``. Figures that were not measured (NaN) are left out.
    """
    known = [value for value in values if math.isfinite(value.value)]
    if not known:
        return Mean(UNKNOWN, 0, 0)
    tasks, task = np.unique([value.task for value in known], return_inverse=True)
    sources, source = np.unique([value.source for value in known], return_inverse=True)
    cells, shape = task * len(sources) + source, (len(tasks), len(sources))
    sums = np.bincount(cells, [value.value for value in known], minlength=math.prod(shape)).reshape(shape)
    counts = np.bincount(cells, minlength=math.prod(shape)).reshape(shape)
    drawn = resampling(len(sources), seed)
    with np.errstate(invalid="ignore"):  # a draw may lack all sources of a task
        per_task = (drawn @ sums.T) / (drawn @ counts.T)
    measured = ~np.isnan(per_task)
    means = np.where(measured, per_task, 0.0).sum(axis=1) / measured.sum(axis=1)
    mean = (sums.sum(axis=1) / counts.sum(axis=1)).mean()
    return Mean(between(mean, means), len(known), len(sources))


def values_of(rows: Iterable[Row], system: str, metric: str) -> list[Value]:
    """A system's figures."""
    return [Value(row.task, row.source, row.figure(metric)) for row in rows if row.system == system]


def paired(rows: Sequence[Row], first: str, second: str, metric: str) -> list[Value]:
    """A figure of the system ``first`` less that of ``second``, for each edit that both made."""
    other = {(row.task, row.id): row.figure(metric) for row in rows if row.system == second}
    return [
        Value(row.task, row.source, row.figure(metric) - other[row.task, row.id])
        for row in rows
        if row.system == first and (row.task, row.id) in other
    ]


def means(rows: Sequence[Row], seed: int = 0) -> dict[tuple[str, str, str], Mean]:
    """Each figure by (task, system, metric).

    :data:`MEAN_OF_TASKS` stands beside the tasks for a system and metric that were measured in all of them, if there
    are several. What was not measured has no key.
    """
    return _per_task(rows, seed, [(system, system, None) for system in systems_of(rows)])


def differences(rows: Sequence[Row], reference: str, seed: int = 0) -> dict[tuple[str, str, str], Mean]:
    """As :func:`means`, of each other system less ``reference`` on the edits that both made."""
    others = [system for system in systems_of(rows) if system != reference]
    return _per_task(rows, seed, [(system, system, reference) for system in others])


def _per_task(
    rows: Sequence[Row], seed: int, wanted: Sequence[tuple[str, str, str | None]]
) -> dict[tuple[str, str, str], Mean]:
    tasks = tasks_of(rows)
    found: dict[tuple[str, str, str], Mean] = {}
    for name, system, reference in wanted:
        for metric in METRICS:
            every = (
                values_of(rows, system, metric) if reference is None else paired(rows, system, reference, metric)
            )  # fmt: skip
            parts = {task: average([value for value in every if value.task == task], seed) for task in tasks}
            if len(tasks) > 1 and all(part.edits for part in parts.values()):
                parts[MEAN_OF_TASKS] = average(every, seed)
            found |= {(task, name, metric): part for task, part in parts.items() if part.edits}
    return found
