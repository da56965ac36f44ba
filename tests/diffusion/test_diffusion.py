"""Pure functions of training and sampling."""

from itertools import pairwise

import pytest
import torch

from apa_lightning.diffusion.guidance import guide, within
from apa_lightning.diffusion.losses import mean_squared_error
from apa_lightning.diffusion.windows import Windows
from apa_lightning.utils.rng import generator_for
from apa_lightning.utils.windows import blend_windows, window_starts, window_weights


def test_the_loss_is_the_mean_square_per_item():
    prediction, noise = torch.randn(3, 2, 4, 5), torch.randn(3, 2, 4, 5)
    assert torch.allclose(mean_squared_error(prediction, noise), ((prediction - noise) ** 2).flatten(1).mean(1))


def test_guide_is_equation_12():
    unconditional, conditional = torch.randn(2, 3), torch.randn(2, 3)
    branches = unconditional, conditional
    assert torch.equal(guide(branches, [7.5]), unconditional + 7.5 * (conditional - unconditional))
    assert torch.equal(guide(branches, [0.0]), unconditional)
    assert torch.equal(guide([conditional], []), conditional)


def test_two_scales_weigh_the_text_and_then_the_recording():
    """Equal scales are Eq. 12; 0 for the recording is text alone; 1 for both is the model itself."""
    nothing, text, both = torch.randn(3, 2, 3)
    assert torch.allclose(guide([nothing, text, both], [5.0, 1.5]), 1.5 * both + 3.5 * text - 4 * nothing, atol=1e-5)
    assert torch.allclose(guide([nothing, text, both], [3.0, 3.0]), guide([nothing, both], [3.0]), atol=1e-5)
    assert torch.equal(guide([nothing, text, both], [3.0, 0.0]), guide([nothing, text], [3.0]))
    assert torch.allclose(guide([nothing, text, both], [1.0, 1.0]), both, atol=1e-5)


def test_an_interval_includes_its_ends():
    model = within((0.2, 0.5), lambda latents, time: "guided", lambda latents, time: "plain", 1000)
    seen = [model(torch.empty(0), torch.tensor(time)) for time in (999, 801, 800.0, 600, 500, 499, 0)]
    assert seen == ["plain", "plain", "guided", "guided", "guided", "plain", "plain"]


def test_windows_are_predicted_together():
    """Seven windows of two items in runs of four: the same sound as one by one, and each run has its own conditions."""
    windows, latents = Windows(1344, 256), torch.randn(2, 3, 1344, 4)
    assert len(windows.starts) == 7
    sizes: list[int] = []

    def model(*shifts: float):
        shift = torch.tensor(shifts).repeat_interleave(2)[:, None, None, None]
        return lambda latents, time: sizes.append(len(latents)) or latents.cumsum(2) * time + shift

    alone = windows.wrap([model(i) for i in range(7)])(latents, torch.tensor(0.5))
    assert sizes == [2] * 7
    sizes.clear()
    together = windows.wrap([model(0, 1, 2, 3), model(4, 5, 6)], 4)(latents, torch.tensor(0.5))
    assert sizes == [8, 6] and torch.equal(together, alone)


@pytest.mark.parametrize(
    ("overlap", "starts"),
    [(0, [0, 256, 512]), (0.25, [0, 171, 341, 512]), (0.5, [0, 128, 256, 384, 512])],
)
def test_windows_overlap_by_at_least_the_share_that_is_asked_for(overlap, starts):
    windows = Windows(768, 256, overlap)
    assert windows.starts == starts
    latents = torch.randn(1, 2, 768, 3)
    numbered = windows.wrap([lambda latents, time, i=i: torch.full_like(latents, i) for i in range(len(starts))])
    found = numbered(latents, torch.tensor(0))[0, 0, :, 0]
    assert found[0] == 0 and found[-1] == len(starts) - 1
    blended = (found != found.round()).sum()
    assert (blended == 0) == (overlap == 0)


@pytest.mark.parametrize("length", [1, 255, 256, 257, 300, 447, 448, 449, 700, 2049])
def test_windows_cover_everything_and_weights_sum_to_one(length):
    window, overlap = 256, 64
    starts = window_starts(length, window, overlap)
    assert starts[0] == 0
    assert len(starts) == 1 or starts[-1] + window == length
    assert all(a + window - b >= overlap for a, b in pairwise(starts))
    weights = window_weights(length, window, starts)
    total = torch.zeros(max(length, window))
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + window] += weight
    assert torch.allclose(total, torch.ones_like(total), atol=1e-6)
    assert (weights >= 0).all()
    for i in range(len(starts) - 1):  # no window stops at full weight: that would be a seam
        assert weights[i][-1] < 0.05
        assert weights[i + 1][0] < 0.05


def test_blending_equal_windows_gives_the_signal_back():
    signal = torch.randn(2, 3, 700, 4)
    starts = window_starts(700, 256, 64)
    parts = torch.stack([signal[:, :, s : s + 256] for s in starts])
    assert torch.allclose(blend_windows(parts, starts, window_weights(700, 256, starts), 700), signal, atol=1e-5)


def test_one_window_is_returned_bit_for_bit():
    part = torch.randn(1, 2, 3, 256, 4)
    assert torch.equal(blend_windows(part, [0], window_weights(256, 256, [0]), 256), part[0])


def test_generators_depend_on_every_part_of_the_key():
    def draw(*key):
        return torch.rand(4, generator=generator_for(*key))

    assert torch.equal(draw(0, "fit", 3, 1), draw(0, "fit", 3, 1))
    keys = [
        (0, "fit", 3, 1),
        (1, "fit", 3, 1),
        (0, "validate", 3, 1),
        (0, "fit", 4, 1),
        (0, "fit", 3, 0),
        (0, "fit", 31),
    ]
    assert len({tuple(draw(*key).tolist()) for key in keys}) == len(keys)
