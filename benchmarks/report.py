"""Results as a table on the screen, as JSON, and as a plot."""

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from timing import CLOCK, Result


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "gpu": gpu,
        "torch": torch.__version__,
        "openvino": find_spec("openvino") is not None,
        "threads": torch.get_num_threads(),
        "clock": os.environ.get(CLOCK) or "wall",
        "load": os.getloadavg()[0],
    }


def table(results: Sequence[Result]) -> str:
    """A Markdown table: question, target, figure with the range of the pairs, reached or not."""
    rows = [("figure", "target", "median of pairs", "range", "pairs", "reached")]
    for one in results:
        sign = "<=" if one.at_most else ">="
        pairs = len(next(iter(one.runs.values()), []))
        values = f"{one.ratio:.3g}x", f"{one.low:.3g} to {one.high:.3g}"
        rows.append((one.question, f"{sign} {one.target:g}x", *values, str(pairs), "yes" if one.reached else "**no**"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def write(results: Sequence[Result], folder: Path) -> None:
    """Write ``results.json``, ``results.md`` and ``results.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(), "results": [asdict(one) | {"reached": one.reached} for one in results]}
    (folder / "results.json").write_text(json.dumps(content, indent=1))
    (folder / "results.md").write_text(table(results) + "\n")
    plot(results, folder / "results.png")


def plot(results: Sequence[Result], path: Path) -> None:
    """Each ratio as a part of its target, with the range of the pairs; on the right of the line the target is reached."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1 + 0.4 * len(results)), layout="constrained")
    axes = figure.subplots()
    for row, one in enumerate(reversed(results)):
        share = [one.target / x if one.at_most else x / one.target for x in (one.low, one.ratio, one.high) if x]
        if len(share) == 3:
            axes.plot([min(share), max(share)], [row, row], color="gray")
            axes.plot(share[1], row, "o", color="tab:green" if one.reached else "tab:red")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set(yticks=range(len(results)), yticklabels=[one.question for one in reversed(results)], xscale="log")
    axes.set_xlabel("figure as a part of its target (1: reached)")
    figure.savefig(path, dpi=120)
