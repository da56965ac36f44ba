"""The scores of one edit by all metrics. Scores are kept next to the audio and read again while nothing has changed."""

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from apa_lightning.audio import load_audio, to_mono
from apa_lightning.errors import InputError
from apa_lightning.metrics import Clip, EditedClip, EditMetric, SetMetric
from apa_lightning.utils.atomic_files import atomic_path

log = logging.getLogger(__name__)

FORMAT = 2  # of the kept files
_REMEMBERED = 64  # recordings whose features stay in memory


@dataclass(frozen=True)
class EditFiles:
    """An edit and what it is compared with.

    Attributes:
        edited: File of the edit.
        source: File of its source.
        other: File of another source, for the floors; None where there is none.
        prompt: Text that the edit should match.
        source_prompt: Text that describes the source.
        target: Instrument that should be recognized; None where no instrument is asked for.
        joints: See :class:`EditedClip`.
        lead: See :class:`EditedClip`.
        digests: Digests of the contents of all the files: the scores of the same contents are not computed again.
    """

    edited: Path
    source: Path
    other: Path | None
    prompt: str
    source_prompt: str
    target: str | None
    digests: tuple[str, ...]
    joints: tuple[tuple[float, float], ...] = ()
    lead: float = 0.0

    @property
    def key(self) -> str:
        """Name under which the scores are kept."""
        joints = (self.joints, self.lead) if self.joints else ()
        about = (FORMAT, *self.digests, self.prompt, self.source_prompt, self.target, *joints)
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]


@dataclass
class Measured:
    """What was measured of one edit.

    Attributes:
        scores: Scores by column, of each metric by its identity.
        embeddings: Embeddings (N, D) for distances between sets, by the name of the embedding.
    """

    scores: dict[str, dict[str, float | None]] = field(default_factory=dict)
    embeddings: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "Measured":
        """What is kept in a file; nothing if there is no such file, or if it is not whole."""
        try:
            with (
                open(path, "rb") as file,
                np.load(file, allow_pickle=False) as found,
            ):  # np.load leaves a torn file open
                embeddings = {name: found[name] for name in found.files if name != "scores"}
                return cls(json.loads(str(found["scores"])), embeddings)
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return cls()

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with atomic_path(path, sole_writer=True) as temporary, open(temporary, "wb") as file:
            np.savez(file, scores=np.array(json.dumps(self.scores, sort_keys=True)), **self.embeddings)  # type: ignore[arg-type]  # numpy types keywords as allow_pickle


class Measurer:
    """Measures edits, and keeps the results in a folder.

    Args:
        metrics: Metrics of single edits.
        set_metrics: Metrics of sets, whose embeddings are computed here.
        kept: Folder of earlier results.
    """

    def __init__(self, metrics: Sequence[EditMetric], set_metrics: Sequence[SetMetric], kept: Path):
        self.metrics, self.kept = list(metrics), kept
        embeddings = [metric.embedding for metric in set_metrics if metric.embedding is not None]
        self.embeddings = {embedding.name: embedding for embedding in embeddings}
        self._clip = lru_cache(maxsize=_REMEMBERED)(_load)

    def measure(self, files: EditFiles) -> Measured:
        """The scores and embeddings of one edit; only those that are not kept are computed. One process at a time may call it."""
        path = self.kept / f"{files.key}.npz"
        measured = Measured.load(path)
        metrics = [metric for metric in self.metrics if metric.identity not in measured.scores]
        embeddings = [name for name in self.embeddings if name not in measured.embeddings]
        if metrics or embeddings:
            self._measure(files, measured, metrics, embeddings)
            measured.save(path)
        return measured

    def scores(self, measured: Measured) -> dict[str, float]:
        """The scores by column; NaN where there is none."""
        columns: dict[str, float] = {}
        for metric in self.metrics:
            found = measured.scores[metric.identity]
            columns |= {name: math.nan if found[name] is None else float(found[name] or 0) for name in metric.columns}
        return columns

    @torch.no_grad()
    def reference(self, path: Path) -> dict[str, np.ndarray]:
        """The embeddings of a reference recording, by their names; without rows if it cannot be measured."""
        clip = self._clip(path)
        return {name: self._embeddings(name, None if clip.problem else clip) for name in self.embeddings}

    @torch.no_grad()
    def _measure(
        self, files: EditFiles, measured: Measured, metrics: Sequence[EditMetric], embeddings: Sequence[str]
    ) -> None:
        edit, other = self._edit(files)
        for metric in metrics:
            scores = dict.fromkeys(metric.columns, math.nan)
            if edit is not None:
                scores[metric.name] = metric.score(edit)
                if metric.has_floor and other is not None:
                    scores[metric.columns[1]] = metric.score(replace(edit, source=other))
            plain = {name: value if math.isfinite(value) else None for name, value in scores.items()}
            measured.scores[metric.identity] = plain
        for name in embeddings:
            measured.embeddings[name] = self._embeddings(name, None if edit is None else edit.edited)

    def _edit(self, files: EditFiles) -> tuple[EditedClip | None, Clip | None]:
        """The edit and the source of another one; None for what cannot be measured."""
        try:
            edited = _load(files.edited)
        except (InputError, OSError) as error:
            log.warning("%s", error)
            return None, None
        source, other = self._clip(files.source), self._clip(files.other) if files.other else None
        if problem := edited.problem or source.problem:
            log.warning("%s is not measured: it or its source %s.", files.edited, problem)
            return None, None
        return (
            EditedClip(
                edited, source, files.prompt, files.source_prompt, files.target, joints=files.joints, lead=files.lead
            ),
            None if other is None or other.problem else other,
        )

    def _embeddings(self, name: str, clip: Clip | None) -> np.ndarray:
        embedding = self.embeddings[name]
        return np.zeros((0, embedding.dimension), np.float32) if clip is None else clip.feature(embedding).numpy()


def _load(path: Path) -> Clip:
    waveform, rate = load_audio(path)
    return Clip(to_mono(waveform), rate)
