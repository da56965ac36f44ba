"""Frechet audio distance: how far the edits as a set are from real recordings, and what it tends to with endless edits."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from apa_lightning.metrics.sets.embeddings import AudioEmbedding
from apa_lightning.metrics.sets.set_metric import SetFigure, SetMetric, check_sets, too_few

DRAWS, SIZES = 10, 15


class Gaussian(NamedTuple):
    """Mean (D,) and unbiased covariance (D, D) of ``size`` embeddings, in float64."""

    size: int
    mean: Tensor
    covariance: Tensor


def gaussian(embeddings: Tensor) -> Gaussian:
    """The Gaussian fitted to embeddings (N, D)."""
    values = embeddings.detach().cpu().double()
    centred = values - values.mean(dim=0)
    return Gaussian(len(values), values.mean(dim=0), centred.T @ centred / max(len(values) - 1, 1))


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians.

    |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), the root's trace from the eigenvalues of the symmetric product.
    """
    return _distance_to(first)(second)


def frechet_audio_distance(edited: Tensor, reference: Tensor) -> SetFigure:
    """FAD (Kilgour et al., arXiv 1812.08466) of embeddings (N, D) and (M, D).

    With fewer than D + 1 embeddings in a set its covariance is singular whatever was recorded: then there is no figure.
    """
    check_sets(edited, reference)
    return _figure(gaussian(edited), gaussian(reference))


def fad_infinity(edited: Tensor, reference: Tensor, draws: int = DRAWS, sizes: int = SIZES, seed: int = 0) -> SetFigure:
    """FAD extrapolated to infinitely many edits (Chong and Forsyth, arXiv 1911.07023; Gui et al., arXiv 2311.01616).

    FAD of n edits exceeds its limit by about slope / n. It is measured on random subsets of ``sizes`` sizes n, evenly from
    max(2 (D + 1), N / 10) to N, and a least-squares line over 1/n is read off at 0. A subset is drawn without replacement,
    as by Chong and Forsyth: with it (as in fadtk) the limit would be the FAD of the N edits themselves. The reference is
    always whole, so its own size still counts. Below 4 (D + 1) edits the points lie on no line and there is no figure.

    Args:
        edited, reference: embeddings (N, D) and (M, D).
        draws: how often all subsets are drawn anew; the points are means over draws. sizes: points on the line.
        seed: of the draws.

    Returns:
        The intercept, the points and the slope. Its interval is over draws: how much the choice of subsets matters, and not
        how much another set of recordings would.
    """
    check_sets(edited, reference)
    dimension, least = edited.shape[1], edited.shape[1] + 1
    if why := too_few(4 * least, f"a line for {dimension} dimensions", edits=len(edited)):
        return SetFigure.none(why)
    if why := too_few(least, f"a covariance in {dimension} dimensions", reference=len(reference)):
        return SetFigure.none(why)
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
    return SetFigure(float(intercept), low=float(low), high=float(high), fit=points, slope=float(slope))


class FrechetAudioDistance(SetMetric):
    """Frechet distance between Gaussians fitted to the embeddings of edits and of reference recordings.

    Source: Kilgour et al. (arXiv 1812.08466), the FAD of AP-Adapter's Table 1 (VGGish). 0 for the same set; figures of
    different embeddings, reference sets or numbers of clips cannot be compared (:func:`fad_infinity` takes the last away).

    The state is the sum of [1, x] [1, x]^T over embeddings x, which holds their number, sum and products; as float32 pairs,
    a value and what rounding has left out of it, because not every device has float64.

    Args:
        embedding: what clips are compared in; see :func:`load_embedding`.

    Attributes:
        edited, reference: (P, 2, D + 1, D + 1), the sum of each process.
    """

    edited: Tensor
    reference: Tensor

    def __init__(self, embedding: AudioEmbedding, **kwargs):
        super().__init__(embedding, **kwargs)
        size = embedding.dimension + 1
        for name in ("edited", "reference"):
            self.add_state(name, torch.zeros(1, 2, size, size), dist_reduce_fx="cat")

    def figure(self) -> SetFigure:
        """As :func:`frechet_audio_distance`."""
        return _figure(_of_sums(_exact(self.edited)), _of_sums(_exact(self.reference)))

    def _take(self, embeddings: Tensor, real: bool) -> None:
        values = torch.nn.functional.pad(embeddings.detach().cpu().double(), (1, 0), value=1.0)
        name = "reference" if real else "edited"
        state = getattr(self, name)
        exact = _exact(state) + values.T @ values
        rounded = exact.float()
        setattr(self, name, torch.stack([rounded, (exact - rounded).float()])[None].to(state.device))


def _exact(state: Tensor) -> Tensor:
    """The sum (D + 1, D + 1) of all processes' pairs, in float64 on the CPU."""
    return state.cpu().double().flatten(0, -3).sum(dim=0)


def _of_sums(sums: Tensor) -> Gaussian:
    count = int(sums[0, 0].round())
    mean = sums[0, 1:] / max(count, 1)
    return Gaussian(count, mean, (sums[1:, 1:] - count * torch.outer(mean, mean)) / max(count - 1, 1))


def _figure(edited: Gaussian, reference: Gaussian) -> SetFigure:
    dimension = len(edited.mean)
    why = too_few(dimension + 1, f"a covariance in {dimension} dimensions", edits=edited.size, reference=reference.size)
    return SetFigure.none(why) if why else SetFigure(frechet_distance(reference, edited))


def _distance_to(fixed: Gaussian) -> Callable[[Gaussian], float]:
    """The distance of other Gaussians to ``fixed``, whose root is taken once."""
    values, vectors = torch.linalg.eigh(fixed.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T

    def distance(other: Gaussian) -> float:
        product = torch.linalg.eigvalsh(root @ other.covariance @ root)
        traces = fixed.covariance.trace() + other.covariance.trace() - 2 * product.clamp(min=0).sqrt().sum()
        return max(0.0, float((fixed.mean - other.mean).square().sum() + traces))

    return distance
