"""The report on a pocket backbone: ``python -m apa_lightning test --config configs/pocket/report.yaml``."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from apa_lightning.errors import InputError
from apa_lightning.pocket.assembly import PARTS, require, sizes
from apa_lightning.pocket.measures import (
    audio_mae,
    clap,
    editing,
    imitation,
    judge,
    loa,
    text_encoder,
    unet,
    vae,
    vocoder,
)
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.proof import Proof
from apa_lightning.pocket.report.recordings import find_recordings, known_instrument, load_recordings
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.pocket.report.table import as_json, table
from apa_lightning.pocket.text.prompts import INSTRUMENTS
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.pretrained import packaged
from apa_lightning.utils.rng import seeded


class Measure(NamedTuple):
    """One part of the report."""

    measure: Callable[[Subject], list[Score]]
    reads: tuple[str, ...]  # Subfolders that it reads


_CLAP, _T5 = ("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")
MEASURES = {
    "vae": Measure(vae.measure, ("vae",)),
    "vocoder": Measure(vocoder.measure, ("vae", "vocoder")),
    "clap": Measure(clap.measure, (*_CLAP, "feature_extractor")),
    "audio_mae": Measure(audio_mae.measure, ("audio_encoder",)),
    "text_encoder": Measure(text_encoder.measure, _T5),
    "loa": Measure(loa.measure, (*_CLAP, *_T5, "audio_encoder", "projection_model", "language_model")),
    "judge": Measure(judge.measure, tuple(PARTS)),
    "unet": Measure(unet.measure, tuple(PARTS)),
    "editing": Measure(editing.measure, tuple(PARTS)),
    "imitation": Measure(imitation.measure, tuple(PARTS)),
}
#: Parts that are measured by default; the others edit much and have their own recipe, configs/pocket/proof.yaml.
DEFAULT = ("vae", "vocoder", "clap", "audio_mae", "text_encoder", "loa")
EDITING = {"editing", "imitation"}  # parts that edit windows of recordings
QUICK = 40


class PocketReport(L.LightningModule):
    """Measures the parts of a pocket folder on held-out clips and writes a table and pictures.

    Nothing is trained. The table goes to the screen, to ``report.md`` and ``report.json`` in ``out``, and to TensorBoard.

    Args:
        folder: Folder of the pocket backbone; null: the weights that come with the package.
        recordings: Folder of real recordings, on which some parts are measured too; null: none.
        out: Folder of the report and its pictures.
        parts: Parts to measure: vae, vocoder, clap, audio_mae, text_encoder, loa (null: these), judge, unet, editing, imitation.
        quick: Measure on at most 40 clips and 10 windows of recordings.
        seed: Seed of draws, intervals and untrained parts.
        proof: Settings of the parts ``editing`` and ``imitation``.

    Raises:
        InputError: If a part is unknown, ``folder`` lacks a part, or ``recordings`` holds no recordings.
    """

    def __init__(
        self,
        folder: Path | None = None,
        recordings: Path | None = None,
        out: Path = Path("runs/pocket/report"),
        parts: list[str] | None = None,
        quick: bool = False,
        seed: int = 0,
        proof: Proof = Proof(),
    ):
        super().__init__()
        self.folder = packaged() if folder is None else Path(folder)
        self.parts = list(DEFAULT) if parts is None else parts
        for part in self.parts:
            if part not in MEASURES:
                raise InputError(f"model.parts: {part!r} is unknown; choose from {', '.join(MEASURES)}.")
        require(self.folder, list(dict.fromkeys(name for part in self.parts for name in MEASURES[part].reads)))
        self.megabytes = {part: round(size / 1e6, 3) for part, size in sizes(self.folder).items()}
        if recordings is not None:
            names = [path.stem for path in find_recordings(recordings)]
            if EDITING & set(self.parts) and not any(map(known_instrument, names)):
                known = ", ".join(INSTRUMENTS)
                raise InputError(f"model.recordings: no file of {recordings} starts with one of {known}: piano_1.wav.")
        self.recordings, self.out, self.quick, self.seed = recordings, Path(out), quick, seed
        self.proof = proof
        self._batches: list[dict[str, Any]] = []
        self._start = 0.0
        self.scores: list[Score] = []

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self._batches.append({**batch, "waveform": batch["waveform"].cpu()})

    def on_test_epoch_end(self) -> None:
        self._start = time.time()
        clips, recordings, windows = self._clips(), None, None
        if self.recordings is not None:
            samples = clips.waveform.shape[1]
            recordings = load_recordings(self.recordings, samples)
            recordings = recordings.spread(10) if self.quick else recordings
            if EDITING & set(self.parts):
                windows = load_recordings(self.recordings, samples, self.proof.windows, overlap=0.75)
        subject = Subject(self.folder, clips, self.seed, self.out, recordings, windows, self.proof)
        self.scores = []
        for part in self.parts:
            start = time.monotonic()
            self.scores += self._measure(part, subject)
            rank_zero_info(f"{part}: measured in {time.monotonic() - start:.0f} s")
        self._publish(len(clips), len(recordings or ()))

    def _clips(self) -> Clips:
        """The held-out clips of all batches."""
        if not self._batches:
            raise InputError("data.validation_shards: no clips to measure on; give held-out shards.")

        def column(key: str) -> list[Any]:
            return [value for batch in self._batches for value in batch.get(key, [])]

        waveform = torch.cat([batch["waveform"] for batch in self._batches])
        clips = Clips(waveform, column("key"), column("prompt"), column("labels"), column("metadata"))
        self._batches = []
        return clips.spread(QUICK) if self.quick else clips

    def _measure(self, part: str, subject: Subject) -> list[Score]:
        """Scores of one part; a part that cannot be measured on these clips gives a row with the reason, and the report goes on."""
        try:
            with seeded(self.seed):
                return MEASURES[part].measure(subject)
        except ValueError as error:  # scikit-learn's or an InputError: too few clips of a class
            why, count = " ".join(str(error).split()), len(subject.clips)
            rank_zero_warn(f"{part}: not measured on these {count} clips: {why}")
            return [Score(part, f"not measured: {why}", math.nan, math.nan, math.nan, count)]

    def _publish(self, clips: int, recordings: int) -> None:
        """Write the report and show its table, for so many clips and windows of recordings."""
        from matplotlib.image import imread

        text = table(self.scores)
        sources = f"{clips} held-out clips" + (f", {recordings} windows of recordings" if recordings else "")
        about = f"Weights: {self.folder}; {sources}; seed {self.seed}."
        parts = ", ".join(f"{part} {size:g}" for part, size in self.megabytes.items())
        size = f"Size: {sum(self.megabytes.values()):.1f} MB: {parts}."
        data = {"folder": str(self.folder), "clips": clips, "recordings": recordings, "seed": self.seed}
        data |= {"megabytes": self.megabytes, "scores": [as_json(score) for score in self.scores]}
        write_file(self.out / "report.md", f"# The pocket backbone, measured\n\n{about} {size}\n\n{text}\n")
        write_file(self.out / "report.json", json.dumps(data, indent=1) + "\n")
        print(f"\n{text}\n\n{about} Report and pictures: {self.out}")
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_text("report", f"{about}\n\n{text}")
                for score in self.scores:
                    logger.experiment.add_scalar(f"report/{score.part}/{score.name}", score.value)
                for path in self._pictures():
                    name = path.relative_to(self.out).with_suffix("").as_posix()
                    logger.experiment.add_image(f"report/{name}", imread(path), dataformats="HWC")

    def _pictures(self) -> list[Path]:
        """The pictures that this report has drawn into its folder."""
        return sorted(path for path in self.out.rglob("*.png") if path.stat().st_mtime >= self._start)
