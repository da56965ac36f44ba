"""Summaries of the rows: means with intervals per task and system, and differences of two systems on the same edits."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from apa_lightning.evaluation.rows import EvaluationRow, columns_of, systems_of, tasks_of
from apa_lightning.utils.bootstrap import UNKNOWN, Interval, resampled

#: Stands for a task: the mean of the tasks' means.
MEAN_OF_TASKS = "mean of tasks"
_SWEPT = re.compile(r"(\S+)(?: \S+=\S+)+")


class Value(NamedTuple):
    """One edit's score, or its difference between two systems."""

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


def compared(rows: Iterable[EvaluationRow]) -> list[EvaluationRow]:
    """The rows without the points of sweeps, which have a table and a plot of their own."""
    return [row for row in rows if family_of(row.system) == row.system]


def average(values: Iterable[Value], seed: int = 0) -> Mean:
    """The mean of the tasks' means; its interval resamples whole sources, the same ones in all tasks.

    Scores that were not measured (NaN) are left out.
    """
    known = [value for value in values if math.isfinite(value.value)]
    if not known:
        return Mean(UNKNOWN, 0, 0)
    tasks, task = np.unique([value.task for value in known], return_inverse=True)
    sources, source = np.unique([value.source for value in known], return_inverse=True)
    cells, shape = task * len(sources) + source, (len(tasks), len(sources))
    sums = np.bincount(cells, [value.value for value in known], minlength=math.prod(shape)).reshape(shape)
    counts = np.bincount(cells, minlength=math.prod(shape)).reshape(shape)

    def mean_of_tasks(drawn: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # a draw may lack all sources of a task
            return np.nanmean(sums[:, drawn].sum(axis=-1) / counts[:, drawn].sum(axis=-1), axis=0)

    return Mean(resampled(mean_of_tasks, len(sources), seed), len(known), len(sources))


def values_of(rows: Iterable[EvaluationRow], system: str, metric: str) -> list[Value]:
    """A system's scores."""
    return [Value(row.task, row.source, row.score(metric)) for row in rows if row.system == system]


def paired(rows: Sequence[EvaluationRow], first: str, second: str, metric: str) -> list[Value]:
    """A score of the system ``first`` less that of ``second``, for each edit that both made."""
    other = {(row.task, row.id): row.score(metric) for row in rows if row.system == second}
    return [
        Value(row.task, row.source, row.score(metric) - other[row.task, row.id])
        for row in rows
        if row.system == first and (row.task, row.id) in other
    ]


def means(rows: Sequence[EvaluationRow], seed: int = 0) -> dict[tuple[str, str, str], Mean]:
    """Each score by (task, system, metric).

    :data:`MEAN_OF_TASKS` stands next to the tasks for a system and metric that were measured in all of them, if there
    are several. What was not measured has no key.
    """
    return _per_task(rows, seed, [(system, system, None) for system in systems_of(rows)])


def differences(rows: Sequence[EvaluationRow], reference: str, seed: int = 0) -> dict[tuple[str, str, str], Mean]:
    """As :func:`means`, of each other system less ``reference`` on the edits that both made."""
    others = [system for system in systems_of(rows) if system != reference]
    return _per_task(rows, seed, [(system, system, reference) for system in others])


def _per_task(
    rows: Sequence[EvaluationRow], seed: int, wanted: Sequence[tuple[str, str, str | None]]
) -> dict[tuple[str, str, str], Mean]:
    tasks = tasks_of(rows)
    found: dict[tuple[str, str, str], Mean] = {}
    for name, system, reference in wanted:
        for metric in columns_of(rows):
            every = (
                values_of(rows, system, metric) if reference is None else paired(rows, system, reference, metric)
            )  # fmt: skip
            parts = {task: average([value for value in every if value.task == task], seed) for task in tasks}
            if len(tasks) > 1 and all(part.edits for part in parts.values()):
                parts[MEAN_OF_TASKS] = average(every, seed)
            found |= {(task, name, metric): part for task, part in parts.items() if part.edits}
    return found
