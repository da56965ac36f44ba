"""LPAPS: a perceptual distance between an edit and its source on CLAP's audio stages."""

from collections.abc import Sequence

import torch
from torch import Tensor

from apa_lightning.errors import InputError
from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.metrics.clap_scores import ClapMetric
from apa_lightning.metrics.comparison import Clip, EditedClip


def stage_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> float:
    """Mean over stages and positions of the squared distance between unit-length channel vectors: 0 to 4.

    Args:
        first: What :meth:`ClapEmbedder.stages` gives for one clip, (W, C, H, V) per stage.
        second: The same of another clip of the same length.

    Raises:
        InputError: If the shapes differ, as those of clips of different lengths may.
    """
    shapes = [[tuple(stage.shape) for stage in stages] for stages in (first, second)]
    if shapes[0] != shapes[1]:
        raise InputError(f"stages: {shapes[0]} and {shapes[1]}; cut both clips to one length, and use one CLAP.")
    unit = torch.nn.functional.normalize
    distances = [
        (unit(a, dim=1) - unit(b, dim=1)).square().sum(dim=1).mean() for a, b in zip(first, second, strict=True)
    ]
    return float(torch.stack(distances).mean())


def lpaps(edited: Clip, source: Clip, clap: ClapEmbedder) -> float:
    """:func:`stage_distance` of two clips, both cut to the shorter; exactly 0 for identical ones."""
    if edited.sample_rate == source.sample_rate and len(edited.waveform) == len(source.waveform):
        return stage_distance(edited.feature(clap.stages), source.feature(clap.stages))
    seconds = min(len(clip.waveform) / clip.sample_rate for clip in (edited, source))
    cut = (clap.stages(clip.waveform[: int(seconds * clip.sample_rate)], clip.sample_rate) for clip in (edited, source))
    return stage_distance(*cut)


class Lpaps(ClapMetric):
    """LPAPS, a perceptual distance between an edit and its source in CLAP's audio stages.

    Source: Iashin and Rahtu ("Taming visually guided sound generation", arXiv 2110.08791) for the audio version of LPIPS;
    Manor and Michaeli (arXiv 2402.10009) for CLAP's stages in place of a trained VGGish. Here, as in LPIPS with all
    weights one, the channels at each position of a stage are scaled to unit length; the squared distances are averaged over
    positions and over stages (scores that add the stages up are as many times larger). Scores of different CLAPs cannot be
    compared.
    """

    name = "lpaps"
    title = "LPAPS"
    higher_is_better = False

    def score(self, edit: EditedClip) -> float:
        """:func:`lpaps` of edit and source."""
        return lpaps(edit.aligned, edit.source, self.clap)
