"""Pictures of waveforms as log-mel spectrograms, drawn without a display and without matplotlib's global state."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap

import numpy as np
from librosa.core.convert import mel_frequencies
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from torch import Tensor

from apa_lightning.audio import MelSpec, log_mel, to_mono
from apa_lightning.utils.atomic_files import atomic_path

DECIBELS = 80.0
TICKS = (250, 1_000, 2_000, 4_000)
TITLE_WIDTH = 68  # characters that fit into a line


def spectrogram_picture(waveforms: Mapping[str, Tensor], sample_rate: int, title: str) -> np.ndarray:
    """One panel per named waveform (S,) or (2, S) under each other, on one time axis and one color scale.

    Returns:
        RGB picture (H, W, 3), uint8.
    """
    spec = MelSpec(sample_rate=sample_rate, f_max=min(8_000.0, sample_rate / 2))
    panels = {
        name: 20 / np.log(10) * log_mel(to_mono(wave)[None], spec)[0, 0].T.cpu().numpy()
        for name, wave in waveforms.items()
    }
    loudest = max(panel.max() for panel in panels.values())
    seconds = max(wave.shape[-1] for wave in waveforms.values()) / sample_rate
    bins = mel_frequencies(n_mels=spec.num_mels, fmin=spec.f_min, fmax=spec.f_max)
    ticks = [tick for tick in TICKS if tick < spec.f_max]

    lines = [line for text in title.splitlines() for line in wrap(text, TITLE_WIDTH)]
    above, below, height = 0.4 + 0.2 * len(lines), 0.55, 1.5 * len(panels)
    figure = Figure(
        figsize=(6.6, above + height + below), dpi=100
    )  # a layout of its own: matplotlib's takes most of a second
    canvas = FigureCanvasAgg(figure)
    edges = {"bottom": below / figure.get_figheight(), "top": 1 - above / figure.get_figheight()}
    axes = figure.subplots(
        len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"left": 0.1, "right": 0.86, "hspace": 0.3, **edges}
    )[:, 0]
    for axis, (name, panel) in zip(axes, panels.items(), strict=True):
        length = waveforms[name].shape[-1] / sample_rate
        image = axis.imshow(
            panel,
            origin="lower",
            aspect="auto",
            extent=(0, length, 0, spec.num_mels),
            cmap="magma",
            vmin=loudest - DECIBELS,
            vmax=loudest,
            interpolation="nearest",
        )
        axis.set_title(name.replace("_", " "), loc="left", fontsize=12, pad=3)
        axis.set_yticks(np.interp(ticks, bins, np.arange(len(bins)) + 0.5), [f"{tick:g}" for tick in ticks])
        axis.set_ylabel("Hz")
    axes[-1].set_xlim(0, seconds)
    axes[-1].set_xlabel("seconds")
    scale = figure.add_axes((0.88, edges["bottom"], 0.02, edges["top"] - edges["bottom"]))
    figure.colorbar(image, cax=scale, label="dB")
    figure.suptitle("\n".join(lines), fontsize=12, y=1 - 0.08 / figure.get_figheight(), parse_math=False)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_png(path: Path, picture: np.ndarray) -> None:
    """Write a picture (H, W, 3) atomically."""
    with atomic_path(path) as temporary:
        imsave(temporary, picture)
