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

    Points have numbers, which the legend below tells; a line joins those of a system that no other of its points excels in both scores.

    Args:
        path: The file.
        fronts: By trials, system and operating point the intervals of the scores.
    """
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(5.5 * len(fronts), 9), layout="constrained")
    fields = {"pitch": "pitch accuracy to the source", "margin": "chroma similarity above the shuffled floor"}
    grid = canvas.subplots(len(fields), len(fronts), squeeze=False)
    numbers: dict[str, int] = {}
    for column, (trials, systems) in zip(grid.T, fronts.items(), strict=True):
        for axis, (field, title) in zip(column, fields.items(), strict=True):
            for system, points in systems.items():
                across, up = (np.array([scores[name] for scores in points.values()]) for name in ("recognized", field))
                spread = [np.abs(side[:, 1:] - side[:, :1]).T for side in (up, across)]
                bars = axis.errorbar(
                    across[:, 0], up[:, 0], *spread, ls="", marker="o", capsize=2, elinewidth=0.5, label=system
                )
                best = _undominated(across[:, 0], up[:, 0])
                axis.plot(across[best, 0], up[best, 0], lw=1, color=bars[0].get_color())
                for name, x, y in zip(points, across[:, 0], up[:, 0], strict=True):
                    words = (
                        name.removeprefix(system).strip(" ,") or "the defaults"
                    )  # the copy's points are the adapter's
                    number = numbers.setdefault(words, len(numbers) + 1)
                    axis.annotate(str(number), (x, y), textcoords="offset points", xytext=(4, 4), fontsize=8)
            axis.set_title(trials)
            axis.set_xlabel("target recognized by the judge (transfer)")
            axis.set_ylabel(f"{title} (fidelity)")
            axis.set_xlim(-0.05, 1.08)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8, loc="lower left")
    told = [f"{number}: {words}" for words, number in numbers.items()]
    canvas.supxlabel("\n".join("    ".join(told[i : i + 4]) for i in range(0, len(told), 4)), fontsize=8)
    save_picture(canvas, path, dpi=110)


def _undominated(across: np.ndarray, up: np.ndarray) -> list[int]:
    """The points that no other excels in both coordinates, from left to right."""
    best: list[int] = []
    for i in sorted(range(len(across)), key=lambda i: (across[i], up[i]), reverse=True):
        if not best or up[i] > up[best[-1]]:
            best.append(i)
    return best[::-1]
