"""The base of all metrics that give one score per edit; `evaluate` writes the scores, training logs their mean."""

import logging
import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from apa_lightning.backbones.base import Backbone
from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.metrics.comparison import EditedClip
from apa_lightning.metrics.sets.embeddings import AudioEmbedding, load_embedding

log = logging.getLogger(__name__)


class Encoders:
    """What a run's metrics encode clips with, unless they were given encoders of their own; each loads when it is asked for.

    Args:
        backbone: The backbone of the edits.
        clap: CLAP folder or hub id; None means the CLAP that the backbone itself reads prompts with.
        embedding: Embedding of distances between sets, see :func:`load_embedding`.
        vggish: Weights of the embedding ``vggish``.
    """

    def __init__(self, backbone: Backbone, clap: str | None = None, embedding: str = "clap", vggish: str | None = None):
        self._backbone, self._clap, self._embedding, self._vggish = backbone, clap, embedding, vggish

    @cached_property
    def clap(self) -> ClapEmbedder:
        """The CLAP of scores of text and of perceptual distances."""
        if not self._clap:
            return ClapEmbedder.of(self._backbone)
        return ClapEmbedder.from_pretrained(self._clap, self._backbone.device)

    @cached_property
    def embedding(self) -> AudioEmbedding:
        """The embedding of distances between sets."""
        return load_embedding(self._embedding, self.clap if self._embedding == "clap" else "embedded", self._vggish)


class EditMetric(Metric):
    """A score per edit, and its mean over clips and processes. A subclass defines :meth:`score` and the attributes.

    A clip that cannot be measured is left out, counted in ``skipped`` and named in a warning; without any clip the mean is
    NaN. The state is sums, so that processes with different numbers of clips agree; it stays out of checkpoints. The sums
    are in float32, because not every device has float64.

    Attributes:
        name: Name of the score's column in ``results.csv``.
        title: Name of the score in tables and plots.
        higher_is_better: Whether more is better.
        has_floor: Whether `evaluate` also measures each edit against the source of another one.
        shuffle: What a shuffled pair exchanges: ``source`` for metrics of fidelity, ``prompt`` for those of transfer.
        version: Number of the definition; scores that an earlier one gave are measured again.
        why_missing: Why a whole evaluation may lack the score; empty if it always has one.
        total: Sum of the scores.
        rest: What rounding has left out of ``total``.
        clips: Number of clips in ``total``.
        skipped: Number of clips that could not be measured.
    """

    name: str = ""
    title: str = ""
    higher_is_better = True
    has_floor: bool = False
    shuffle: Literal["source", "prompt"] = "source"
    version: int = 1
    why_missing: str = ""

    is_differentiable = False
    full_state_update = False

    total: Tensor
    rest: Tensor
    clips: Tensor
    skipped: Tensor

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name in ("total", "rest"):
            self.add_state(name, torch.zeros(()), dist_reduce_fx="sum")
        for name in ("clips", "skipped"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    @abstractmethod
    def score(self, edit: EditedClip) -> float:
        """The score of one edit; NaN where it is not defined."""

    def connect(self, encoders: Encoders) -> None:
        """Take what is known only when the backbone is loaded."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of its columns in ``results.csv``."""
        return (self.name, f"{self.name}_floor") if self.has_floor else (self.name,)

    @property
    def identity(self) -> str:
        """What decides a score besides the edit; scores are kept under this name."""
        return f"{type(self).__module__}.{type(self).__qualname__} {self.version}"

    def update(self, edits: Sequence[EditedClip]) -> None:
        """Add the scores of edits."""
        for i, edit in enumerate(edits):
            names = ("edited", "source") if self.shuffle == "source" else ("edited",)
            problem = next((f"{name} {why}" for name in names if (why := getattr(edit, name).problem)), "")
            if problem:
                self._leave_out(i, problem)
            else:
                self._add(i, self.score(edit))

    def compute(self) -> Tensor:
        """The mean as a scalar; NaN without clips."""
        return (self.total + self.rest) / self.clips

    def _add(self, clip: int, value: float) -> None:
        if math.isfinite(value):
            exact = float(self.total) + float(self.rest) + value
            self.total = self.total.new_tensor(exact)
            self.rest = self.rest.new_tensor(exact - float(self.total))
            self.clips += 1
        else:
            self._leave_out(clip, "score is not finite")

    def _leave_out(self, clip: int, why: str) -> None:
        log.warning("%s: clip %d of the batch is left out: its %s.", type(self).__name__, clip, why)
        self.skipped += 1
