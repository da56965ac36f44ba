"""How different an edit sounds from its source: a perceptual distance on CLAP's audio stages."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

from apa_lightning.errors import InputError
from apa_lightning.metrics.clap_embedder import ClapEmbedder, clap_of
from apa_lightning.metrics.clip_mean import SourceMean


def stage_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Mean over stages and positions of the squared distance between unit-length channel vectors: 0 to 4.

    Args:
        first, second: what :meth:`ClapEmbedder.stages` gives for two clips of one length: (W, C, H, V) per stage.

    Raises:
        InputError: the shapes differ, as those of clips of different lengths may.
    """
    shapes = [[tuple(stage.shape) for stage in stages] for stages in (first, second)]
    if shapes[0] != shapes[1]:
        raise InputError(f"stages: {shapes[0]} and {shapes[1]}; cut both clips to one length, and use one CLAP.")
    unit = torch.nn.functional.normalize
    distances = [
        (unit(a, dim=1) - unit(b, dim=1)).square().sum(dim=1).mean() for a, b in zip(first, second, strict=True)
    ]
    return float(torch.stack(distances).mean())


def lpaps(edited: Tensor, source: Tensor, sample_rate: int, clap: ClapEmbedder) -> float:
    """:func:`stage_distance` of two waveforms (S,) and (R,), both cut to the shorter; exactly 0 for identical ones."""
    samples = min(len(edited), len(source))
    return stage_distance(clap.stages(edited[:samples], sample_rate), clap.stages(source[:samples], sample_rate))


class Lpaps(SourceMean):
    """LPAPS, a perceptual distance between an edit and its source in CLAP's audio stages, averaged over clips.

    Source: Iashin and Rahtu ("Taming visually guided sound generation", arXiv 2110.08791) for the audio version of LPIPS;
    Manor and Michaeli (arXiv 2402.10009) for CLAP's stages in place of a trained VGGish. Here, as in LPIPS with all
    weights one, the channels at each position of a stage are scaled to unit length; the squared distances are averaged over
    positions and over stages (figures that add the stages up are as many times larger). Figures of different CLAPs cannot be compared.

    Args:
        clap: the CLAP, or where to load one from; see :meth:`ClapEmbedder.from_pretrained`.
    """

    higher_is_better = False

    def __init__(self, clap: ClapEmbedder | str | os.PathLike, **kwargs):
        super().__init__(**kwargs)
        self.clap = clap_of(clap)

    def figure(self, edited: Tensor, source: Tensor, sample_rate: int) -> float:
        """:func:`lpaps` of the two."""
        return lpaps(edited, source, sample_rate, self.clap)
