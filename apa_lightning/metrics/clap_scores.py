"""Scores in CLAP's space: how well an edit matches its text, and whether it moved towards it."""

import os

import torch
from torch import Tensor

from apa_lightning.errors import InputError
from apa_lightning.metrics.clap_embedder import ClapEmbedder, clap_of
from apa_lightning.metrics.comparison import EditedClip
from apa_lightning.metrics.edit_metric import EditMetric, Encoders

#: A step between two unit-length embeddings that is shorter has no direction, only rounding.
NO_STEP = 1e-3


def clap_score(audio: Tensor, text: Tensor) -> float:
    """Cosine between the unit-length embeddings (D,) of a clip and of a text."""
    return float(audio @ text)


def delta_clap(edited: Tensor, source: Tensor, text: Tensor) -> float:
    """How much closer to the text an edit is than its source: the difference of their scores; embeddings (D,)."""
    return clap_score(edited, text) - clap_score(source, text)


def directional_clap(edited: Tensor, source: Tensor, text: Tensor, source_text: Tensor) -> float:
    """Cosine between the step from source to edit and that from the source's text to the prompt; embeddings (D,).

    NaN where there is no step: an untouched recording, or two equal texts.
    """
    step, wanted = edited - source, text - source_text
    if min(step.norm(), wanted.norm()) < NO_STEP:
        return float("nan")
    return float(torch.nn.functional.cosine_similarity(step, wanted, dim=0))


class ClapMetric(EditMetric):
    """Base of the metrics that encode clips with a CLAP.

    Args:
        clap: The CLAP, or where to load one from (see :meth:`ClapEmbedder.from_pretrained`). None means the run's own:
            `evaluate` takes the one that the backbone itself reads prompts with.
    """

    def __init__(self, clap: ClapEmbedder | str | os.PathLike | None = None, **kwargs):
        super().__init__(**kwargs)
        self._clap = None if clap is None else clap_of(clap)

    @property
    def clap(self) -> ClapEmbedder:
        """The CLAP."""
        if self._clap is None:
            raise InputError(f"clap: {type(self).__name__} has none; give a CLAP folder, a hub id or `embedded`.")
        return self._clap

    def connect(self, encoders: Encoders) -> None:
        """Take the run's CLAP, unless the metric has its own."""
        self._clap = self._clap or encoders.clap

    @property
    def identity(self) -> str:
        """What decides a score besides the edit, with the CLAP's name."""
        return f"{super().identity} {self.clap.name}"


class ClapScore(ClapMetric):
    """Cosine between the CLAP embedding of the edit and that of the prompt.

    Source: the evaluation of AP-Adapter (arXiv 2407.16564); CLAP is LAION's (Wu et al., arXiv 2211.06687). Scores of
    different CLAPs cannot be compared, so reports name the one that was used (``clap.name``).
    """

    name = "clap"
    title = "CLAP"
    shuffle = "prompt"

    def score(self, edit: EditedClip) -> float:
        """:func:`clap_score` of edit and prompt."""
        return clap_score(edit.edited.feature(self.clap.audio), self.clap.prompt(edit.prompt))


class DeltaClap(ClapMetric):
    """CLAP score of the edit minus that of its source with the same text.

    What the edit has gained: a source that happens to match the text gains nothing by being left alone (no edit: 0). It is
    the plain difference of two :class:`ClapScore`; no paper's scale is claimed for it.
    """

    name = "delta_clap"
    title = "delta CLAP"

    def score(self, edit: EditedClip) -> float:
        """:func:`delta_clap` of edit, source and prompt."""
        after, before = edit.edited.feature(self.clap.audio), edit.source.feature(self.clap.audio)
        return delta_clap(after, before, self.clap.prompt(edit.prompt))


class DirectionalClap(ClapMetric):
    """Cosine between the edit's step in CLAP's audio space and the prompt's step in its text space.

    Source: the directional CLIP similarity of StyleGAN-NADA (Gal et al., arXiv 2108.00946) and InstructPix2Pix (arXiv
    2211.09800), with CLAP in place of CLIP: cos(audio(edit) - audio(source), text(prompt) - text(source's text)). 1 is a
    step exactly where the words point, 0 one across; an untouched recording has none and is left out.
    """

    name = "directional_clap"
    title = "directional CLAP"

    def score(self, edit: EditedClip) -> float:
        """:func:`directional_clap` of edit and source, prompt and the source's text."""
        after, before = edit.edited.feature(self.clap.audio), edit.source.feature(self.clap.audio)
        return directional_clap(after, before, self.clap.prompt(edit.prompt), self.clap.prompt(edit.source_prompt))
