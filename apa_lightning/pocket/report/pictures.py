"""Pictures of log-mels and masked filter banks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apa_lightning.pocket.patch_decoder import patches, unpatched


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
