"""FAD, FAD-infinity and KAD: closed forms, independent computations, sums over processes."""

import json
import logging
import math

import numpy as np
import pytest
import torch
from random_folders import tiny_backbone
from scipy.linalg import sqrtm
from tunes import RATE, melody

from apa_lightning.errors import InputError
from apa_lightning.metrics import (
    ClapEmbedding,
    FadInfinity,
    FrechetAudioDistance,
    KernelAudioDistance,
    fad_infinity,
    frechet_audio_distance,
    kernel_audio_distance,
)
from apa_lightning.metrics.sets.frechet import Gaussian, frechet_distance, gaussian

METRICS = [FrechetAudioDistance, FadInfinity, KernelAudioDistance]
PLAIN = {
    FrechetAudioDistance: frechet_audio_distance,
    FadInfinity: fad_infinity,
    KernelAudioDistance: kernel_audio_distance,
}


class Chunks:
    """An embedding that needs no model: the first ``dimension`` samples of each 100."""

    name, dimension = "chunks", 5

    def __call__(self, waveform, sample_rate):
        return waveform.unfold(0, 100, 100)[:, : self.dimension]


def draws(count: int, dimension: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(dimension, dimension, generator=generator, dtype=torch.float64)
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64) @ mixed + seed


def noise(seed: int, level: float = 0.3) -> torch.Tensor:
    return level * torch.randn(RATE, generator=torch.Generator().manual_seed(seed)) + 0.1 * seed


# --- FAD ------------------------------------------------------------------------------------------------------------


def test_frechet_distance_of_known_gaussians():
    """Diagonal covariances: |m1 - m2|^2 + sum (s1 - s2)^2; one dimension rotated along with the other."""
    first = Gaussian(9, torch.tensor([1.0, 2.0]).double(), torch.diag(torch.tensor([4.0, 9.0])).double())
    second = Gaussian(9, torch.tensor([4.0, -2.0]).double(), torch.diag(torch.tensor([1.0, 25.0])).double())
    assert frechet_distance(first, second) == pytest.approx(25 + (2 - 1) ** 2 + (3 - 5) ** 2)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]]).double()
    turned = [Gaussian(9, turn @ one.mean, turn @ one.covariance @ turn.T) for one in (first, second)]
    assert frechet_distance(*turned) == pytest.approx(30)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)


def test_fad_equals_numpys_and_scipys():
    edited, reference = draws(40, seed=1), draws(30, seed=2)
    means = [values.numpy().mean(axis=0) for values in (edited, reference)]
    covariances = [np.cov(values.numpy(), rowvar=False) for values in (edited, reference)]
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(means[0] - means[1]).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_audio_distance(edited, reference).value == pytest.approx(expected)
    assert frechet_audio_distance(reference, edited).value == pytest.approx(expected)
    assert expected > 1


@pytest.mark.parametrize(("edits", "real", "there"), [(5, 9, "5 of the edits"), (9, 4, "4 of the reference")])
def test_fewer_embeddings_than_dimensions_have_no_fad(edits, real, there):
    figure = frechet_audio_distance(draws(edits), draws(real))
    assert math.isnan(figure.value)
    assert "5 dimensions needs 6 embeddings" in figure.why
    assert there in figure.why
    assert frechet_audio_distance(draws(6), draws(6)).why == ""


@pytest.mark.parametrize("distance", [frechet_audio_distance, kernel_audio_distance, fad_infinity])
def test_embeddings_of_different_kinds_are_refused(distance):
    with pytest.raises(InputError, match=r"\(30, 5\).*\(30, 4\)"):
        distance(draws(30), draws(30, dimension=4))
    with pytest.raises(InputError, match=r"\(5,\)"):
        distance(draws(30)[0], draws(30))


# --- FAD-infinity ---------------------------------------------------------------------------------------------------


def test_fad_infinity_finds_the_known_limit():
    dimension, generator = 10, torch.Generator().manual_seed(3)
    reference = torch.randn(100_000, dimension, generator=generator, dtype=torch.float64)
    edited = 1.5 * torch.randn(200, dimension, generator=generator, dtype=torch.float64) + 0.2
    limit = dimension * (0.2**2 + 0.5**2)
    of_all = frechet_audio_distance(edited, reference).value
    figure = fad_infinity(edited, reference)
    assert of_all > limit + 0.15  # finite sets look worse than they are
    assert figure.value == pytest.approx(limit, abs=0.5 * (of_all - limit))
    assert figure.low < figure.value < figure.high < of_all
    assert figure.fit[-1] == (1 / 200, pytest.approx(of_all))


def test_the_line_is_that_through_the_points():
    figure = fad_infinity(draws(100, seed=1), draws(200, seed=2), draws=3, sizes=6)
    inverse, values = np.array(figure.fit).T
    assert (1 / inverse).round() == pytest.approx([12, 29, 47, 64, 82, 100])
    slope, intercept = np.polyfit(inverse, values, 1)
    assert (figure.slope, figure.value) == pytest.approx((slope, intercept))
    assert json.loads(json.dumps(figure.fit))  # plain numbers


def test_fad_infinity_is_seeded():
    sets = draws(60, seed=1), draws(60, seed=2)
    assert fad_infinity(*sets, draws=2) == fad_infinity(*sets, draws=2)
    assert fad_infinity(*sets, draws=2, seed=1).value != fad_infinity(*sets, draws=2).value


def test_too_few_edits_lie_on_no_line():
    figure = fad_infinity(draws(23), draws(60))
    assert math.isnan(figure.value)
    assert "needs 24 embeddings; there are 23 of the edits" in figure.why
    assert "5 of the reference" in fad_infinity(draws(24), draws(5)).why


# --- KAD ------------------------------------------------------------------------------------------------------------


def test_kad_equals_naive_loops():
    x, y = draws(12, seed=1).tolist(), draws(9, seed=2).tolist()
    pairs = sorted(math.dist(y[i], y[j]) for i in range(9) for j in range(i))
    width = pairs[(len(pairs) - 1) // 2]  # torch's median is the lower of two

    def mean(a, b, same):
        values = [
            math.exp(-(math.dist(p, q) ** 2) / (2 * width**2))
            for i, p in enumerate(a)
            for j, q in enumerate(b)
            if not (same and i == j)
        ]
        return sum(values) / len(values)

    expected = 100 * (mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False))
    assert kernel_audio_distance(torch.tensor(x), torch.tensor(y)).value == pytest.approx(expected, rel=1e-5)


def test_kad_is_unbiased_and_sees_a_shift():
    halves = torch.randn(60, 20, 4, generator=torch.Generator().manual_seed(0)).chunk(2)
    same = [kernel_audio_distance(a, b).value for a, b in zip(*halves, strict=True)]
    moved = [kernel_audio_distance(a + 1, b).value for a, b in zip(*halves, strict=True)]
    assert abs(np.mean(same)) < 3 * np.std(same) / math.sqrt(30)
    assert min(same) < 0 < min(moved)


def test_kad_without_a_figure():
    assert "needs 2 embeddings; there are 1 of the edits" in kernel_audio_distance(draws(1), draws(5)).why
    figure = kernel_audio_distance(draws(5), torch.ones(5, 5))
    assert math.isnan(figure.value)
    assert "median distance" in figure.why


# --- metrics of audio -----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("kind", METRICS)
def test_metrics_equal_the_plain_functions(kind):
    metric = kind(Chunks())
    edits, real = [noise(1), noise(2)], [noise(0, 0.5)]
    metric.update(edits[:1], RATE, real=False)
    metric.update(real, RATE, real=True)
    metric.update(edits[1:], RATE, real=False)
    joined = [torch.cat([Chunks()(clip, RATE) for clip in clips]) for clips in (edits, real)]
    assert metric.compute() == pytest.approx(PLAIN[kind](*joined).value, rel=1e-5)
    assert metric.higher_is_better is False
    metric.reset()
    assert math.isnan(metric.compute())


def test_golden_values():
    """Figures of 2026-11 on fixed audio: a change means that another definition is measured."""
    edited, reference = 3 * Chunks()(melody(1), RATE), Chunks()(melody(2), RATE)
    assert frechet_audio_distance(edited, reference).value == pytest.approx(0.43478, abs=1e-4)
    assert kernel_audio_distance(edited, reference).value == pytest.approx(44.470, abs=1e-2)
    assert fad_infinity(edited, reference).value == pytest.approx(0.43387, abs=1e-4)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("kind", METRICS)
def test_processes_agree_also_when_one_has_nothing(kind):
    """Each process's state meets the others', as torchmetrics gathers them under DDP."""
    clips = [([noise(1), noise(2)], False), ([noise(0, 0.5)], True)]
    whole, parts = kind(Chunks()), [kind(Chunks()) for _ in range(3)]
    for part, (batch, real) in zip(parts, clips, strict=False):  # the third stays empty
        part.update(batch, RATE, real=real)
        whole.update(batch, RATE, real=real)
    states = [part.metric_state for part in parts]
    joined = {
        name: [torch.cat(v) if isinstance(v, list) else v for v in (s[name] for s in states)] for name in states[0]
    }
    assert {value.ndim for value in joined["edited"]} == {joined["edited"][0].ndim}
    gathered = iter([joined["skipped"], joined["edited"], joined["reference"]])
    one = kind(Chunks(), distributed_available_fn=lambda: True, dist_sync_fn=lambda *_, **__: next(gathered))
    one.update(*clips[0][:1], RATE, real=False)
    assert one.compute() == pytest.approx(float(whole.compute()), rel=1e-5)
    merged = kind(Chunks())
    for part in parts:
        merged.merge_state(part)
    assert merged.compute() == pytest.approx(float(whole.compute()), rel=1e-5)


def test_the_state_of_fad_is_float32_and_its_sums_are_as_exact_as_float64():
    far = torch.randn(40_000, generator=torch.Generator().manual_seed(0)) + 1e3
    metric = FrechetAudioDistance(Chunks())
    for part in far.chunk(8):
        metric.update([part], 5_000, real=False)
    metric.update([far[:20_000]], 20_000, real=True)
    assert {values.dtype for values in (*metric.edited, *metric.reference)} == {torch.float32}
    expected = frechet_distance(gaussian(Chunks()(far, 1)), gaussian(Chunks()(far[:20_000], 1)))
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", METRICS)
def test_unusable_clips_and_too_few_are_named(kind, caplog):
    metric = kind(Chunks())
    with caplog.at_level(logging.WARNING):
        metric.update([torch.zeros(RATE), torch.ones(9)], RATE, real=False)
        assert math.isnan(metric.compute())
    assert int(metric.skipped) == 2
    assert "digital silence" in caplog.text
    assert "0 of the edits" in caplog.text


def test_with_claps_windows():
    embedding = ClapEmbedding(tiny_backbone())
    metric = KernelAudioDistance(embedding)
    for real in (True, False):
        metric.update([melody(1, seconds=12.0), melody(2, seconds=12.0)], RATE, real=real)
    assert [len(batch) for batch in metric.edited] == [0, 3, 3]
    assert metric.compute() < 0  # equal sets: unbiased, so below the biased estimate's 0
    assert str(tiny_backbone()) in embedding.name
    assert metric.state_dict() == {}
