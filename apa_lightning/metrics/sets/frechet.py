"""Frechet audio distance between edits as a set and real recordings, and its limit for infinitely many edits."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from apa_lightning.metrics.sets.set_metric import SetMetric, SetScore, check_sets, too_few

DRAWS, SIZES = 10, 15


class Gaussian(NamedTuple):
    """Mean (D,) and unbiased covariance (D, D) of ``size`` embeddings, in float64."""

    size: int
    mean: Tensor
    covariance: Tensor


def gaussian(embeddings: Tensor) -> Gaussian:
    """The Gaussian fitted to embeddings (N, D)."""
    values = embeddings.detach().cpu().double()
    centered = values - values.mean(dim=0)
    return Gaussian(len(values), values.mean(dim=0), centered.T @ centered / max(len(values) - 1, 1))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), the root's trace from the eigenvalues of the symmetric product.
    """
    return _distance_to(first)(second)


def frechet_audio_distance(edited: Tensor, reference: Tensor) -> SetScore:
    """FAD (Kilgour et al., arXiv 1812.08466) of embeddings (N, D) and (M, D).

    With fewer than D + 1 embeddings in a set its covariance is singular whatever was recorded: then there is no distance.
    """
    check_sets(edited, reference)
    dimension = edited.shape[1]
    counts = {"edits": len(edited), "reference": len(reference)}
    if why := too_few(dimension + 1, f"a covariance in {dimension} dimensions", **counts):
        return SetScore.none(why)
    return SetScore(frechet_distance(gaussian(reference), gaussian(edited)))


def fad_infinity(edited: Tensor, reference: Tensor, draws: int = DRAWS, sizes: int = SIZES, seed: int = 0) -> SetScore:
    """FAD extrapolated to infinitely many edits (Chong and Forsyth, arXiv 1911.07023; Gui et al., arXiv 2311.01616).

    FAD of n edits exceeds its limit by about slope / n. It is measured on random subsets of ``sizes`` sizes n, evenly from
    max(2 (D + 1), N / 10) to N, and a least-squares line over 1/n is read off at 0. A subset is drawn without replacement,
    as by Chong and Forsyth: with it (as in fadtk) the limit would be the FAD of the N edits themselves. The reference is
    always whole, so its own size still counts. Below 4 (D + 1) edits the points do not lie on a line and there is no distance.

    Args:
        edited: Embeddings (N, D).
        reference: Embeddings (M, D).
        draws: Number of times that all subsets are drawn anew; the points are means over draws.
        sizes: Number of points on the line.
        seed: Seed of the draws.

    Returns:
        The intercept, the points and the slope. Its interval is over draws: how much the choice of subsets matters, and not
        how much another set of recordings would.
    """
    check_sets(edited, reference)
    dimension, least = edited.shape[1], edited.shape[1] + 1
    if why := too_few(4 * least, f"a line for {dimension} dimensions", edits=len(edited)):
        return SetScore.none(why)
    if why := too_few(least, f"a covariance in {dimension} dimensions", reference=len(reference)):
        return SetScore.none(why)
    numbers = np.unique(np.linspace(max(2 * least, len(edited) // 10), len(edited), sizes).astype(int))
    distance = _distance_to(gaussian(reference))
    random = np.random.default_rng(seed)

    def of_subset(size: int) -> float:
        return distance(gaussian(edited[torch.from_numpy(random.permutation(len(edited))[:size])]))

    found = np.array([[of_subset(n) for n in numbers] for _ in range(draws)])
    lines = np.polyfit(1 / numbers, found.T, 1)  # (slope and intercept, draws)
    low, high = np.percentile(lines[1], [2.5, 97.5])
    slope, intercept = lines.mean(axis=1)
    points = tuple((float(1 / n), float(value)) for n, value in zip(numbers, found.mean(axis=0), strict=True))
    return SetScore(float(intercept), low=float(low), high=float(high), fit=points, slope=float(slope))


class FrechetAudioDistance(SetMetric):
    """FAD: Frechet distance between Gaussians fitted to the embeddings of edits and of reference recordings.

    Source: Kilgour et al. (arXiv 1812.08466), the FAD of AP-Adapter's Table 1 (VGGish). 0 for the same set; distances in
    different embeddings, to different reference sets or of different numbers of clips cannot be compared
    (:class:`FadInfinity` takes the last away).
    """

    name = "fad"
    title = "FAD"
    distance = staticmethod(frechet_audio_distance)


class FadInfinity(SetMetric):
    """FAD extrapolated to infinitely many edits; see :func:`fad_infinity`."""

    name = "fad_infinity"
    title = "FAD-infinity"
    distance = staticmethod(fad_infinity)


def _distance_to(fixed: Gaussian) -> Callable[[Gaussian], float]:
    """The distance of other Gaussians to ``fixed``, whose root is taken once."""
    values, vectors = torch.linalg.eigh(fixed.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T

    def distance(other: Gaussian) -> float:
        product = torch.linalg.eigvalsh(root @ other.covariance @ root)
        traces = fixed.covariance.trace() + other.covariance.trace() - 2 * product.clamp(min=0).sqrt().sum()
        return max(0.0, float((fixed.mean - other.mean).square().sum() + traces))

    return distance
