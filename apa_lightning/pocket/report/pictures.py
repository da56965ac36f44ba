"""Pictures of log-mels, masked filter banks and fronts of edits."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apa_lightning.pocket.patch_decoder import patches, unpatched
from apa_lightning.utils.bootstrap import Interval


def save_picture(canvas: Any, path: Path, dpi: int = 90) -> None:
    """Write a matplotlib figure to ``path``; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=dpi)


def draw_mels(path: Path, rows: Mapping[str, Sequence[Tensor]], titles: Sequence[str]) -> None:
    """Draw log-mels (T, F): one named row per kind, one column per clip. All mels of a column share one color scale."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(4 * len(titles), 2.2 * len(rows)), layout="constrained")
    grid = canvas.subplots(len(rows), len(titles), squeeze=False)
    for column, title in enumerate(titles):
        shown = [torch.as_tensor(mels[column]) for mels in rows.values()]
        low, high = min(float(m.min()) for m in shown), max(float(m.max()) for m in shown)
        for axis, (name, mel) in zip(grid[:, column], zip(rows, shown, strict=True), strict=True):
            axis.imshow(mel.T.numpy(), origin="lower", aspect="auto", vmin=low, vmax=high, cmap="magma")
            axis.set_title(f"{name}: {title}", fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
    save_picture(canvas, path)


def draw_masked(path: Path, banks: Tensor, predicted: Tensor, masked: Tensor, titles: Sequence[str]) -> None:
    """Draw filter banks (B, 1, T, F), the patches that the encoder saw, and the decoder's predictions.

    Those are the values ``predicted`` (B, N, P) of all patches; the encoder did not see the ``masked`` ones (B, N).
    """
    size = round(predicted.shape[-1] ** 0.5)
    grid, target = (banks.shape[2] // size, banks.shape[3] // size), patches(banks, size)
    shown = {
        "source": target,
        "seen": target.masked_fill(masked[..., None], float(target.min())),
        "reconstruction": torch.where(masked[..., None], predicted, target),
        "decoded": predicted,
    }
    rows = {name: list(unpatched(values, grid).cpu()) for name, values in shown.items()}
    draw_mels(path, rows, titles[: len(banks)])


def draw_fronts(path: Path, fronts: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Interval]]]]) -> None:
    """Transfer against fidelity, as Fig. 2 of the paper, with 95 % intervals; a column per kind of trials.

    Args:
        path: The file.
        fronts: By trials, system and operating point the intervals of the scores.
    """
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(5.5 * len(fronts), 8), layout="constrained")
    fields = {"pitch": "pitch accuracy to the source", "margin": "chroma similarity above the shuffled floor"}
    grid = canvas.subplots(len(fields), len(fronts), squeeze=False)
    for column, (trials, systems) in zip(grid.T, fronts.items(), strict=True):
        for axis, (field, title) in zip(column, fields.items(), strict=True):
            named: set[str] = set()
            for system, points in systems.items():
                ordered = sorted(points.items(), key=lambda point: point[1]["recognized"].mean)
                across, up = (np.array([scores[name] for _, scores in ordered]) for name in ("recognized", field))
                spread = [np.abs(side[:, 1:] - side[:, :1]).T for side in (up, across)]
                axis.errorbar(
                    across[:, 0], up[:, 0], *spread, marker="o", capsize=2, lw=1, elinewidth=0.5, label=system
                )
                for (name, _), x, y in zip(ordered, across[:, 0], up[:, 0], strict=True):
                    words = name.removeprefix(system).strip()
                    if words and words not in named:  # points of the copy are those of the adapter
                        axis.annotate(words, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=6)
                    named.add(words)
            axis.set_title(trials)
            axis.set_xlabel("target recognized by the judge (transfer)")
            axis.set_ylabel(f"{title} (fidelity)")
            axis.set_xlim(-0.05, 1.05)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
    save_picture(canvas, path, dpi=110)
