"""How well the text is met, and whether the edit moved towards it: scores in CLAP's space."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from apa_lightning.metrics.clap_embedder import ClapEmbedder, clap_of
from apa_lightning.metrics.clip_mean import ClipMean, Waveforms, check_pairs

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


class _ClapMean(ClipMean):
    """Means over clips that hold a CLAP.

    Args:
        clap: the CLAP, or where to load one from; see :meth:`ClapEmbedder.from_pretrained`.
    """

    def __init__(self, clap: ClapEmbedder | str | os.PathLike, **kwargs):
        super().__init__(**kwargs)
        self.clap = clap_of(clap)


class ClapScore(_ClapMean):
    """Cosine between the CLAP embedding of the audio and that of the text, averaged over clips.

    Source: the evaluation of AP-Adapter (arXiv 2407.16564); CLAP is LAION's (Wu et al., arXiv 2211.06687). Figures of
    different CLAPs cannot be compared, so reports name the one that was used (``clap.name``).

    Args:
        clap: the CLAP, or where to load one from; see :meth:`ClapEmbedder.from_pretrained`.
    """

    def update(self, edited: Waveforms, prompts: Sequence[str], sample_rate: int) -> None:
        """Add clips and the texts that they should match.

        Args:
            edited: (B, S), or B waveforms (S,) of any length.
            prompts: B texts.
            sample_rate: in Hz.
        """
        check_pairs(edited, prompts, "edited and prompts")
        for i, (waveform, prompt) in enumerate(zip(edited, prompts, strict=True)):
            if self._usable(i, sample_rate, edited=waveform):
                self._add(i, clap_score(self.clap.audio(waveform, sample_rate), self.clap.text([prompt])[0]))


class DeltaClap(_ClapMean):
    """CLAP score of the edit minus that of its source with the same text, averaged over clips.

    What the edit has gained: a source that happens to match the text gains nothing by being left alone (no edit: 0). It is
    the plain difference of two :class:`ClapScore`; no paper's scale is claimed for it.

    Args:
        clap: the CLAP, or where to load one from; see :meth:`ClapEmbedder.from_pretrained`.
    """

    def update(self, edited: Waveforms, source: Waveforms, prompts: Sequence[str], sample_rate: int) -> None:
        """Add pairs of clips and the texts that the edits should match.

        Args:
            edited, source: (B, S), or B waveforms (S,) of any length.
            prompts: B texts.
            sample_rate: of both, in Hz.
        """
        check_pairs(edited, source, "edited and source")
        check_pairs(edited, prompts, "edited and prompts")
        for i, (one, other, prompt) in enumerate(zip(edited, source, prompts, strict=True)):
            if self._usable(i, sample_rate, edited=one, source=other):
                after, before = (self.clap.audio(waveform, sample_rate) for waveform in (one, other))
                self._add(i, delta_clap(after, before, self.clap.text([prompt])[0]))


class DirectionalClap(_ClapMean):
    """Cosine between the edit's step in CLAP's audio space and the prompt's step in its text space, averaged over clips.

    Source: the directional CLIP similarity of StyleGAN-NADA (Gal et al., arXiv 2108.00946) and InstructPix2Pix (arXiv
    2211.09800), with CLAP in place of CLIP: cos(audio(edit) - audio(source), text(prompt) - text(source's text)). 1 is a
    step exactly where the words point, 0 one across; an untouched recording has none and is left out.

    Args:
        clap: the CLAP, or where to load one from; see :meth:`ClapEmbedder.from_pretrained`.
    """

    def update(
        self,
        edited: Waveforms,
        source: Waveforms,
        prompts: Sequence[str],
        source_prompts: Sequence[str],
        sample_rate: int,
    ) -> None:
        """Add pairs of clips and pairs of texts.

        Args:
            edited, source: (B, S), or B waveforms (S,) of any length.
            prompts: B texts that the edits should match.
            source_prompts: B texts that describe the sources, such as "a recording of a piano solo".
            sample_rate: of both, in Hz.
        """
        check_pairs(edited, source, "edited and source")
        check_pairs(edited, prompts, "edited and prompts")
        check_pairs(edited, source_prompts, "edited and source_prompts")
        for i, (one, other) in enumerate(zip(edited, source, strict=True)):
            if self._usable(i, sample_rate, edited=one, source=other):
                after, before = (self.clap.audio(waveform, sample_rate) for waveform in (one, other))
                text, source_text = self.clap.text([prompts[i], source_prompts[i]])
                self._add(i, directional_clap(after, before, text, source_text))
