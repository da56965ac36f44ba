"""A batch of edits as a backbone generates it: what the editor has checked and encoded, without its own types."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from apa_lightning.adapters.base import Adapter
from apa_lightning.adapters.scale import Scale
from apa_lightning.diffusion.windows import Windows

#: ``diffusion`` denoises latents; ``tokens`` draws codes one after the other.
Sampling = Literal["diffusion", "tokens"]


@dataclass(frozen=True)
class EditBatch:
    """B edits of one length that share their knobs, apart from texts, guidance scales, seeds and what is kept.

    Attributes:
        settings: The knobs that they share: an ``EditSettings``.
        prompts: B prompts.
        negative_prompts: B negative prompts.
        guidance: Scales (K, B) of :func:`apa_lightning.diffusion.guidance.guide`; K is 0 without guidance.
        seeds: B seeds.
        waveform: The recordings (B, S) or (B, 2, S) at the backbone's rate, padded to whole frames.
        lengths: Samples of each that are not padding.
        frames: Frames of each, at least those of a window.
        kept: Frames (B, T) that stay as they are in the recording; None: none.
        windows: The windows that cover the frames.
        adapters: The adapter of each audio prompt.
        tokens: For each window, and in it for each audio prompt, its pooled tokens (B, N, D).
        nothing: For each audio prompt, the tokens (1, N, D) of the unconditional branch.
        ap_scale_at: Alpha of each audio prompt after a share of the steps, where it changes; None: it does not.
        on_step: Called after each step, or with a number of steps.
    """

    settings: Any
    prompts: Sequence[str]
    negative_prompts: Sequence[str]
    guidance: Tensor
    seeds: Sequence[int]
    waveform: Tensor
    lengths: Sequence[int]
    frames: int
    kept: Tensor | None
    windows: Windows
    adapters: Sequence[Adapter]
    tokens: Sequence[Sequence[Tensor]]
    nothing: Sequence[Tensor]
    ap_scale_at: Callable[[float], list[Scale]] | None = None
    on_step: Callable[..., Any] = lambda *_: None

    def conditions(self, backbone: Any, first: int, count: int = 1, guided: bool = True) -> tuple[Any, list[Tensor]]:
        """Text and audio tokens of some windows, window by window, as the backbone reads them.

        Args:
            backbone: Encodes the texts.
            first: Number of the first window.
            count: Number of windows; there may be fewer.
            guided: All branches of :func:`apa_lightning.diffusion.guidance.guide`, one after the other, instead of the last alone.
        """
        run, rate = self.tokens[first : first + count], backbone.sample_rate
        starts = [start * backbone.hop_samples / rate for start in self.windows.starts[first : first + count]]
        places = [(start, length / rate) for start in starts for length in self.lengths]
        tokens = [torch.cat(windows_of_one) for windows_of_one in zip(*run, strict=True)]
        text = wanted = backbone.placed(backbone.encode_text([*self.prompts] * len(run)), places)
        if guided and len(self.guidance):
            for _ in self.guidance[1:]:
                text = text.cat(wanted)
            negative = backbone.encode_text([*self.negative_prompts] * len(run))
            text = backbone.placed(negative, places).cat(text)
            tokens = [
                torch.cat([nothing.expand_as(one)] * len(self.guidance) + [one])
                for one, nothing in zip(tokens, self.nothing, strict=True)
            ]
        return text, [adapter.project(one) for adapter, one in zip(self.adapters, tokens, strict=True)]
