"""Every figure of the pocket backbone from its written weights: ``python -m apa_lightning test --config configs/pocket/report.yaml``."""

import dataclasses
import importlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from apa_lightning.errors import InputError
from apa_lightning.pocket.assembly import PARTS, require, sizes
from apa_lightning.pocket.report.figures import Clips, Figure
from apa_lightning.pocket.report.recordings import find_recordings, load_recordings
from apa_lightning.utils.atomic_files import atomic_path
from apa_lightning.utils.pretrained import packaged

#: What can be measured (``measures/<name>.py``), and the subfolders that it reads.
READS = {
    "vae": ("vae",),
    "vocoder": ("vae", "vocoder"),
    "clap": ("tokenizer", "text_encoder", "feature_extractor"),
    "audio_mae": ("audio_encoder",),
    "text_encoder": ("tokenizer_2", "text_encoder_2"),
    "loa": (
        "tokenizer",
        "text_encoder",
        "tokenizer_2",
        "text_encoder_2",
        "audio_encoder",
        "projection_model",
        "language_model",
    ),
    "judge": tuple(PARTS),
    "unet": tuple(PARTS),
    "editing": tuple(PARTS),
}
#: What is measured if nothing is asked for; the others edit much and have their own recipe, configs/pocket/proof.yaml.
FROZEN = ("vae", "vocoder", "clap", "audio_mae", "text_encoder", "loa")
QUICK = 40
COLUMNS = ("part", "figure", "target", "value [95 %]", "untrained", "beside", "clips", "reached")


class PocketReport(L.LightningModule):
    """Measures the parts of a pocket folder on held-out clips and writes a table and pictures.

    Nothing is trained. The table goes to the screen, to ``report.md`` and ``report.json`` in ``out``, and to TensorBoard.

    Args:
        folder: the pocket backbone's parts; null: the weights that come with the package.
        recordings: a folder of real recordings, on which the reconstruction is measured too; null: none.
        out: folder of the report and its pictures.
        parts: what to measure: vae, vocoder, clap, audio_mae, text_encoder, loa (null: these), judge, unet, editing.
        quick: measure on at most 40 clips and 10 windows of recordings.
        seed: of draws, intervals and the untrained parts beside.

    Raises:
        InputError: an unknown part, a part that ``folder`` lacks, or no recordings where they should be.
    """

    def __init__(
        self,
        folder: Path | None = None,
        recordings: Path | None = None,
        out: Path = Path("runs/pocket/report"),
        parts: list[str] | None = None,
        quick: bool = False,
        seed: int = 0,
    ):
        super().__init__()
        self.folder = packaged() if folder is None else Path(folder)
        self.parts = list(FROZEN) if parts is None else parts
        for part in self.parts:
            if part not in READS:
                raise InputError(f"model.parts: {part!r} is unknown; choose from {', '.join(READS)}.")
        require(self.folder, list(dict.fromkeys(name for part in self.parts for name in READS[part])))
        if recordings is not None:
            find_recordings(recordings)
        self.recordings, self.out, self.quick, self.seed = recordings, Path(out), quick, seed
        self._batches: list[dict[str, Any]] = []
        self.figures: list[Figure] = []

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._batches.append({**batch, "waveform": batch["waveform"].cpu()})

    def on_test_epoch_end(self) -> None:
        clips, recordings = self._clips(), None
        if self.recordings is not None:
            recordings = load_recordings(self.recordings, clips.waveform.shape[1])
            recordings = spread(recordings, 10) if self.quick else recordings
        self.figures = []
        for part in self.parts:
            start = time.monotonic()
            self.figures += self._measure(part, clips, recordings)
            rank_zero_info(f"{part}: measured in {time.monotonic() - start:.0f} s")
        self._publish(clips, recordings)

    def _clips(self) -> Clips:
        """The held-out clips of all batches."""
        if not self._batches:
            raise InputError("data.validation_shards: no clips to measure on; give held-out shards.")

        def column(key: str) -> list[Any]:
            return [value for batch in self._batches for value in batch.get(key, [])]

        waveform = torch.cat([batch["waveform"] for batch in self._batches])
        clips = Clips(waveform, column("key"), column("prompt"), column("labels"), column("metadata"))
        self._batches = []
        return spread(clips, QUICK) if self.quick else clips

    def _measure(self, part: str, clips: Clips, recordings: Clips | None) -> list[Figure]:
        """Figures of one part; what cannot be measured on these clips is a row that says why, not the end of the report."""
        measure = importlib.import_module(f"apa_lightning.pocket.measures.{part}").measure
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                return measure(self.folder, clips, self.seed, pictures=self.out, recordings=recordings)
        except ValueError as error:  # scikit-learn's words, or an InputError: too few clips of a class
            why = " ".join(str(error).split())
            rank_zero_warn(f"{part}: not measured on these {len(clips)} clips: {why}")
            return [Figure(part, f"not measured: {why}", math.nan, math.nan, math.nan, len(clips))]

    def _publish(self, clips: Clips, recordings: Clips | None) -> None:
        text = table(self.figures)
        heard = f"{len(clips)} held-out clips" + (f", {len(recordings)} windows of recordings" if recordings else "")
        about = f"Weights: {self.folder}; {heard}; seed {self.seed}."
        megabytes = {part: round(size / 1e6, 3) for part, size in sizes(self.folder).items()}
        data = {
            "folder": str(self.folder),
            "clips": len(clips),
            "recordings": len(recordings) if recordings else 0,
            "seed": self.seed,
            "megabytes": megabytes,
            "figures": [as_json(figure) for figure in self.figures],
        }
        size = f"Size: {sum(megabytes.values()):.1f} MB: {', '.join(f'{k} {v:g}' for k, v in megabytes.items())}."
        for name, content in (
            ("report.md", f"# The pocket backbone, measured\n\n{about} {size}\n\n{text}\n"),
            ("report.json", json.dumps(data, indent=1) + "\n"),
        ):
            with atomic_path(self.out / name) as temporary:
                temporary.write_text(content)
        print(f"\n{text}\n\n{about} Report and pictures: {self.out}")
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("report", f"{about}\n\n{text}")
                for figure in self.figures:
                    logger.experiment.add_scalar(f"report/{figure.part}/{figure.name}", figure.value)


def spread(clips: Clips, most: int) -> Clips:
    """At most ``most`` of the clips, evenly from first to last."""
    count = min(most, len(clips))
    return clips.take([i * len(clips) // count for i in range(count)])


def table(figures: Sequence[Figure]) -> str:
    """A Markdown table of ``figures`` whose columns line up as plain text too."""
    rows = [list(COLUMNS), *(_row(figure) for figure in figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _row(figure: Figure) -> list[str]:
    measured = not math.isnan(figure.value)
    interval = f" [{_number(figure.low)}, {_number(figure.high)}]" if measured else ""
    reached = {None: "", True: "yes", False: "no"}[figure.reached if measured else None]
    return [
        figure.part,
        figure.name,
        figure.target,
        _number(figure.value) + interval,
        "" if figure.untrained is None else _number(figure.untrained),
        "; ".join(f"{name} {_number(value)}" for name, value in figure.beside.items()),
        str(figure.clips),
        reached,
    ]


def _number(value: float) -> str:
    """Three significant digits, plain; empty for NaN."""
    if math.isnan(value):
        return ""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def as_json(figure: Figure) -> dict[str, Any]:
    """The figure's fields and whether its target is reached; what was not measured is null."""
    fields = dataclasses.asdict(figure)
    fields["reached"] = None if math.isnan(figure.value) else figure.reached

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(inner) for name, inner in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return plain(fields)
