"""What an edit is judged by: how much of the recording is kept (chroma), how well the text is met (CLAP).

Both are torchmetrics that average one figure per clip and sum counts over processes. A clip that cannot be measured is
left out, counted in ``skipped`` and named in a warning; with no clip left the mean is NaN, never a made-up number.
"""

import logging
import math
import os
import warnings
from collections.abc import Sequence, Sized

import librosa
import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from apa_lightning.audio import resample
from apa_lightning.clap import ClapEmbedder
from apa_lightning.edit_request import MIN_SECONDS, SILENCE_PEAK
from apa_lightning.errors import InputError

log = logging.getLogger(__name__)

CHROMA_RATE, CHROMA_BINS, CHROMA_HOP = 16_000, 12, 512
Waveforms = Tensor | Sequence[Tensor]


class ClipMean(Metric):
    """Mean of one figure per clip; subclasses add figures in ``update``.

    The state is sums, so that processes with different numbers of clips agree; it stays out of checkpoints. They are in
    float32, because not every device has float64.

    Attributes:
        total: sum of the figures.
        rest: what rounding has left out of ``total``.
        clips: number of clips in ``total``.
        skipped: number of clips that could not be measured.
    """

    is_differentiable = False
    higher_is_better = True
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

    def compute(self) -> Tensor:
        """The mean as a scalar, NaN without clips."""
        return (self.total + self.rest) / self.clips

    def _add(self, clip: int, value: float) -> None:
        if math.isfinite(value):
            exact = float(self.total) + float(self.rest) + value
            self.total = self.total.new_tensor(exact)
            self.rest = self.rest.new_tensor(exact - float(self.total))
            self.clips += 1
        else:
            self._leave_out(clip, "figure is not finite")

    def _leave_out(self, clip: int, why: str) -> None:
        log.warning("%s: clip %d of the batch is left out: its %s.", type(self).__name__, clip, why)
        self.skipped += 1

    def _usable(self, clip: int, sample_rate: int, **waveforms: Tensor) -> bool:
        """Whether all ``waveforms`` (S,) can be measured; if not, it is counted and said why."""
        for name, waveform in waveforms.items():
            if why := unmeasurable(waveform, sample_rate):
                self._leave_out(clip, f"{name} {why}")
                return False
        return True


def unmeasurable(waveform: Tensor, sample_rate: int) -> str:
    """Why a waveform (S,) cannot be measured, as the end of a sentence; empty if it can."""
    if waveform.ndim != 1:
        raise InputError(
            f"waveform: has shape {tuple(waveform.shape)}; give mono clips (S,), or a batch of them (B, S)."
        )
    if len(waveform) < MIN_SECONDS * sample_rate:
        return f"lasts {len(waveform) / sample_rate:.2f} s, less than {MIN_SECONDS} s"
    if not torch.isfinite(waveform).all():
        return "contains NaN or infinite samples"
    return "is digital silence" if float(waveform.abs().max()) < SILENCE_PEAK else ""


def check_pairs(first: Sized, second: Sized, names: str) -> None:
    if len(first) != len(second):
        raise InputError(f"{names}: {len(first)} and {len(second)} items; give as many of both.")


# --- chroma ---------------------------------------------------------------------------------------------------------


def chroma(waveform: Tensor, sample_rate: int) -> np.ndarray:
    """Constant-Q chromagram (12, N) of a waveform (S,): librosa's, at 16 kHz, one frame per 32 ms."""
    samples = resample(waveform.detach().float().cpu(), sample_rate, CHROMA_RATE).numpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_fft=.* is too large")  # the lowest octaves of clips below 3 s
        warnings.filterwarnings("ignore", "Trying to estimate tuning from empty")  # noise has none: 0 is taken
        return librosa.feature.chroma_cqt(y=samples, sr=CHROMA_RATE, hop_length=CHROMA_HOP, n_chroma=CHROMA_BINS)


def chroma_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over frames of the cosine between two chromagrams (12, N) and (12, M); the longer one is cut.

    A frame without any energy in one of the two counts as 0; one without energy in both is left out.
    """
    frames = min(first.shape[1], second.shape[1])
    first, second = first[:, :frames].astype(np.float64), second[:, :frames].astype(np.float64)
    norms = np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=0)
    heard = (norms[0] > 0) | (norms[1] > 0)
    product = norms[0] * norms[1]
    cosines = np.divide((first * second).sum(axis=0), product, out=np.zeros(frames), where=product > 0)
    return float(cosines[heard].mean()) if heard.any() else float("nan")


class SourceMean(ClipMean):
    """Mean over pairs of an edited clip and its source of the figure that a subclass gives."""

    def figure(self, edited: Tensor, source: Tensor, sample_rate: int) -> float:
        """The figure of one pair of waveforms (S,); NaN where there is none."""
        raise NotImplementedError

    def update(self, edited: Waveforms, source: Waveforms, sample_rate: int) -> None:
        """Add pairs of clips.

        Args:
            edited, source: (B, S), or B waveforms (S,) of any length.
            sample_rate: of both, in Hz.
        """
        check_pairs(edited, source, "edited and source")
        for i, (one, other) in enumerate(zip(edited, source, strict=True)):
            if self._usable(i, sample_rate, edited=one, source=other):
                self._add(i, self.figure(one, other, sample_rate))


class ChromaSimilarity(SourceMean):
    """Framewise cosine similarity of constant-Q chroma with 12 bins, averaged over frames, then over clips.

    Source: the evaluation of AP-Adapter (arXiv 2407.16564), computed with librosa's ``chroma_cqt`` (7 octaves from C1,
    tuning estimated per clip). 1 is the same harmony and melody; *different* real recordings reach about 0.45 to 0.52
    and white noise even 0.68, so a figure is only readable beside that of shuffled pairs.
    """

    def figure(self, edited: Tensor, source: Tensor, sample_rate: int) -> float:
        """:func:`chroma_cosine` of the two."""
        return chroma_cosine(chroma(edited, sample_rate), chroma(source, sample_rate))


# --- CLAP -----------------------------------------------------------------------------------------------------------


class ClapScore(ClipMean):
    """Cosine between the CLAP embedding of the audio and that of the text, averaged over clips.

    Source: the evaluation of AP-Adapter (arXiv 2407.16564); CLAP is LAION's (Wu et al., arXiv 2211.06687). Figures of
    different CLAPs cannot be compared, so reports name the one that was used (``clap.name``).

    Args:
        clap: the CLAP, or where to load one from; see :meth:`ClapEmbedder.from_pretrained`.
    """

    def __init__(self, clap: ClapEmbedder | str | os.PathLike, **kwargs):
        super().__init__(**kwargs)
        self.clap = clap if isinstance(clap, ClapEmbedder) else ClapEmbedder.from_pretrained(clap)

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
                self._add(i, float(self.clap.audio(waveform, sample_rate) @ self.clap.text([prompt])[0]))
