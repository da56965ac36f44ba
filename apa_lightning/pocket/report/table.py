"""Scores as a Markdown table and as JSON."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from apa_lightning.pocket.report.scores import Score

COLUMNS = ("part", "score", "target", "value [95 %]", "untrained", "compared with", "clips", "reached")


def table(scores: Sequence[Score]) -> str:
    """A Markdown table of ``scores`` whose columns line up as plain text too."""
    rows = [list(COLUMNS), *(_row(score) for score in scores)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _row(score: Score) -> list[str]:
    measured = not math.isnan(score.value)
    interval = f" [{_number(score.low)}, {_number(score.high)}]" if measured else ""
    reached = {None: "", True: "yes", False: "no"}[score.reached if measured else None]
    return [
        score.part,
        score.name,
        score.target,
        _number(score.value) + interval,
        "" if score.untrained is None else _number(score.untrained),
        "; ".join(f"{name} {_number(value)}" for name, value in score.compared.items()),
        str(score.clips),
        reached,
    ]


def _number(value: float) -> str:
    """Three significant digits, plain; empty for NaN."""
    if math.isnan(value):
        return ""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def as_json(score: Score) -> dict[str, Any]:
    """The fields of a score and whether its target is reached; null where it was not measured."""
    fields = dataclasses.asdict(score)
    fields["reached"] = None if math.isnan(score.value) else score.reached

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return plain(fields)
