"""The figures of one edit, each measured once: they are kept beside the audio and read again while nothing has changed."""

import hashlib
import json
import logging
import math
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from apa_lightning.audio import load_audio, resample, to_mono
from apa_lightning.errors import InputError
from apa_lightning.evaluation.rows import METRICS
from apa_lightning.metrics import (
    beat_f1,
    beats,
    chroma,
    chroma_cosine,
    clap_score,
    cqt_correlation,
    delta_clap,
    directional_clap,
    loudness,
    loudness_correlation,
    onset_f1,
    onsets,
    pitch,
    pitch_accuracy,
    stage_distance,
    top_cqt,
    unmeasurable,
)
from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.metrics.sets.embeddings import AudioEmbedding
from apa_lightning.pocket.parts.judge import InstrumentJudge
from apa_lightning.utils.atomic_files import atomic_path

log = logging.getLogger(__name__)

FORMAT = 1  # raise it when a figure's definition changes
_REMEMBERED = 64  # recordings whose features stay in memory


@dataclass(frozen=True)
class Pair:
    """An edit and what it is compared with.

    Attributes:
        edited, source: files. other: a recording of another source, for the floors; None where there is none.
        score_text: what the edit should match. source_text: what the source is.
        target: the instrument to be recognised; None where no instrument is asked for.
    """

    edited: Path
    source: Path
    other: Path | None
    score_text: str
    source_text: str
    target: str | None = None


@dataclass(frozen=True)
class Measures:
    """Figures by ``rows.METRICS`` (NaN where there is none), and the edit's embeddings (N, D) for distances of sets."""

    figures: dict[str, float]
    embeddings: np.ndarray = field(repr=False)


class Heard:
    """A recording's features, each computed when it is asked for."""

    def __init__(self, path: Path, clap: ClapEmbedder, embedding: AudioEmbedding):
        waveform, self.rate = load_audio(path)
        self.waveform, self._clap, self._embedding = to_mono(waveform), clap, embedding
        self.problem = unmeasurable(self.waveform, self.rate)

    chroma = cached_property(lambda self: chroma(self.waveform, self.rate))
    pitch = cached_property(lambda self: pitch(self.waveform, self.rate))
    line = cached_property(lambda self: top_cqt(self.waveform, self.rate))
    onsets = cached_property(lambda self: onsets(self.waveform, self.rate))
    beats = cached_property(lambda self: beats(self.waveform, self.rate))
    loudness = cached_property(lambda self: loudness(self.waveform, self.rate))
    clap = cached_property(lambda self: self._clap.audio(self.waveform, self.rate))
    stages = cached_property(lambda self: self._clap.stages(self.waveform, self.rate))
    embeddings = cached_property(lambda self: self._embedding(self.waveform, self.rate).numpy())


class Measurer:
    """Measures edits, and keeps what it has measured in a folder.

    Args:
        clap: of the CLAP scores and LPAPS. embedding: of FAD and KAD. judge: names instruments; None: nothing is recognised.
        kept: folder of what was measured before.
    """

    def __init__(self, clap: ClapEmbedder, embedding: AudioEmbedding, judge: InstrumentJudge | None, kept: Path):
        self.clap, self.embedding, self.judge, self.kept = clap, embedding, judge, kept
        self._text = lru_cache(maxsize=None)(lambda text: clap.text([text])[0])
        self._heard = lru_cache(maxsize=_REMEMBERED)(lambda path: Heard(path, clap, embedding))

    def measure(self, pair: Pair, digests: tuple[str, ...]) -> Measures:
        """The figures of one edit. One process at a time may measure it.

        Args:
            digests: of the contents of all files of ``pair``: what was measured of the same contents is not measured again.
        """
        path = self.kept / f"{self.key(pair, digests)}.npz"
        try:
            with np.load(path, allow_pickle=False) as found:
                figures = json.loads(str(found["figures"]))
                return Measures({name: _number(figures[name]) for name in METRICS}, found["embeddings"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):  # not there, or not whole
            made = self._measure(pair)
        plain = {name: None if math.isnan(value) else value for name, value in made.figures.items()}
        with atomic_path(path, sole_writer=True) as temporary, open(temporary, "wb") as file:
            np.savez(file, figures=json.dumps(plain), embeddings=made.embeddings)
        return made

    def reference(self, path: Path) -> np.ndarray:
        """The embeddings (N, D) of a reference recording; none of one that cannot be measured."""
        heard = self._heard(path)
        return self._nothing() if heard.problem else heard.embeddings

    def key(self, pair: Pair, digests: tuple[str, ...]) -> str:
        """The name under which the figures are kept."""
        about = (
            FORMAT, *digests, pair.score_text, pair.source_text, pair.target, self.clap.name, self.embedding.name,
            self.judge is not None,
        )  # fmt: skip
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:24]

    def _nothing(self) -> np.ndarray:
        return np.zeros((0, self.embedding.dimension), np.float32)

    def _measure(self, pair: Pair) -> Measures:
        figures = dict.fromkeys(METRICS, math.nan)
        try:
            edited = Heard(pair.edited, self.clap, self.embedding)
        except (InputError, OSError) as error:
            log.warning("%s", error)
            return Measures(figures, self._nothing())
        source, other = self._heard(pair.source), self._heard(pair.other) if pair.other else None
        if problem := edited.problem or source.problem:
            log.warning("%s is not measured: it or its source %s.", pair.edited, problem)
            return Measures(figures, self._nothing())
        text, before = self._text(pair.score_text), self._text(pair.source_text)
        figures |= {
            "clap": clap_score(edited.clap, text),
            "delta_clap": delta_clap(edited.clap, source.clap, text),
            "directional_clap": directional_clap(edited.clap, source.clap, text, before),
            "chroma": chroma_cosine(edited.chroma, source.chroma),
            "melody": pitch_accuracy(edited.pitch, source.pitch),
            "cqt": cqt_correlation(edited.line, source.line),
            "onset_f1": onset_f1(edited.onsets, source.onsets),
            "beat_f1": beat_f1(edited.beats, source.beats),
            "loudness": loudness_correlation(edited.loudness, source.loudness),
            "lpaps": self._lpaps(edited, source),
        }
        if other is not None and not other.problem:
            figures["chroma_floor"] = chroma_cosine(edited.chroma, other.chroma)
            figures["melody_floor"] = pitch_accuracy(edited.pitch, other.pitch)
        if pair.target is not None and self.judge is not None:
            figures["recognised"] = float(self.judge.names(_at_16k(edited)[None]) == [pair.target])
        return Measures(figures, edited.embeddings)

    def _lpaps(self, edited: Heard, source: Heard) -> float:
        """The stages of two recordings of one length; of others both are cut to the shorter."""
        if len(edited.waveform) == len(source.waveform) and edited.rate == source.rate:
            return stage_distance(edited.stages, source.stages)
        seconds = min(len(edited.waveform) / edited.rate, len(source.waveform) / source.rate)
        cut = (self.clap.stages(one.waveform[: int(seconds * one.rate)], one.rate) for one in (edited, source))
        return stage_distance(*cut)


def _at_16k(heard: Heard) -> Tensor:
    return resample(heard.waveform, heard.rate, 16_000).to(torch.float32)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
