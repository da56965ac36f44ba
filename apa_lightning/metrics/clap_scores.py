"""How well the text is met: scores in CLAP's space."""

import os
from collections.abc import Sequence

from apa_lightning.clap import ClapEmbedder
from apa_lightning.metrics.clip_mean import ClipMean, Waveforms, check_pairs


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
