"""Kernel audio distance: the edits as a set against real recordings, without Gaussians and for small sets."""

import torch
from torch import Tensor

from apa_lightning.metrics.sets.embeddings import AudioEmbedding
from apa_lightning.metrics.sets.set_metric import SetFigure, SetMetric, check_sets, too_few

SCALE = 100.0


def kernel_audio_distance(edited: Tensor, reference: Tensor) -> SetFigure:
    """KAD (Chung et al., arXiv 2502.15602) of embeddings (N, D) and (M, D).

    100 times the unbiased estimate of the squared maximum mean discrepancy (Gretton et al., 2012) with the kernel
    exp(-|x - y|^2 / (2 s^2)), where s is the median distance between two embeddings of the reference. The factor is that of
    the authors' toolkit, kadtk 1.1. Being unbiased it may fall below 0 for sets of one distribution.

    No figure with fewer than two embeddings in a set, or where most of the reference is one and the same.
    """
    check_sets(edited, reference)
    if why := too_few(2, "an unbiased estimate", edits=len(edited), reference=len(reference)):
        return SetFigure.none(why)
    x, y = (values.detach().cpu().double() for values in (edited, reference))
    width = float(torch.pdist(y).median())
    if not width:
        return SetFigure.none(
            "the median distance between the reference's embeddings is 0, so that no kernel has a width"
        )

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        exact = "donot_use_mm_for_euclid_dist"  # the fast form rounds small distances away
        return (-torch.cdist(a, b, compute_mode=exact).square() / (2 * width**2)).exp()

    def within(a: Tensor) -> Tensor:
        return (kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1))  # the diagonal is 1

    return SetFigure(SCALE * float(within(x) + within(y) - 2 * kernel(x, y).mean()))


class KernelAudioDistance(SetMetric):
    """KAD: maximum mean discrepancy between the embeddings of edits and of reference recordings, times 100.

    Source: Chung et al. (arXiv 2502.15602); see :func:`kernel_audio_distance`. About 0 for sets of one distribution, and for
    small sets too, where FAD is biased. Figures of different embeddings cannot be compared.

    Args:
        embedding: what clips are compared in; see :func:`load_embedding`.

    Attributes:
        edited, reference: lists of embeddings (N, D).
    """

    edited: list[Tensor]
    reference: list[Tensor]

    def __init__(self, embedding: AudioEmbedding, **kwargs):
        super().__init__(embedding, **kwargs)
        for name in ("edited", "reference"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all clips."""
        super().reset()
        for name in ("edited", "reference"):  # a process without clips gathers a matrix too, of no rows
            setattr(self, name, [torch.zeros(0, self.embedding.dimension, device=self.device)])

    def figure(self) -> SetFigure:
        """As :func:`kernel_audio_distance`."""
        return kernel_audio_distance(_joined(self.edited), _joined(self.reference))

    def _take(self, embeddings: Tensor, real: bool) -> None:
        (self.reference if real else self.edited).append(embeddings.detach().float().to(self.device))


def _joined(state: list[Tensor] | Tensor) -> Tensor:
    return state if isinstance(state, Tensor) else torch.cat(state)
