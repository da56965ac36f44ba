"""Kernel audio distance between edits as a set and real recordings, without Gaussians and for small sets."""

import torch
from torch import Tensor

from apa_lightning.metrics.sets.set_metric import SetMetric, SetScore, check_sets, too_few

SCALE = 100.0


def kernel_audio_distance(edited: Tensor, reference: Tensor) -> SetScore:
    """KAD (Chung et al., arXiv 2502.15602) of embeddings (N, D) and (M, D).

    100 times the unbiased estimate of the squared maximum mean discrepancy (Gretton et al., 2012) with the kernel
    exp(-|x - y|^2 / (2 s^2)), where s is the median distance between two embeddings of the reference. The factor is that of
    the authors' toolkit, kadtk 1.1. Being unbiased it may fall below 0 for sets of one distribution.

    There is no distance with fewer than two embeddings in a set, or where most of the reference's are equal.
    """
    check_sets(edited, reference)
    if why := too_few(2, "an unbiased estimate", edits=len(edited), reference=len(reference)):
        return SetScore.none(why)
    x, y = (values.detach().cpu().double() for values in (edited, reference))
    width = float(torch.pdist(y).median())
    if not width:
        return SetScore.none(
            "the median distance between the reference's embeddings is 0, so that no kernel has a width"
        )

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        exact = "donot_use_mm_for_euclid_dist"  # the fast form rounds small distances away
        return (-torch.cdist(a, b, compute_mode=exact).square() / (2 * width**2)).exp()

    def within(a: Tensor) -> Tensor:
        return (kernel(a, a).sum() - len(a)) / (len(a) * (len(a) - 1))  # the diagonal is 1

    return SetScore(SCALE * float(within(x) + within(y) - 2 * kernel(x, y).mean()))


class KernelAudioDistance(SetMetric):
    """KAD: maximum mean discrepancy between the embeddings of edits and of reference recordings, times 100.

    Source: Chung et al. (arXiv 2502.15602); see :func:`kernel_audio_distance`. About 0 for sets of one distribution, and for
    small sets too, where FAD is biased. Distances in different embeddings cannot be compared.
    """

    name = "kad"
    title = "KAD"
    distance = staticmethod(kernel_audio_distance)
