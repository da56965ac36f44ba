"""Token counts and values of the pooled grid."""

import pytest
import torch

from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.errors import InputError


@pytest.mark.parametrize(("omega", "tokens"), [(1, 512), (2, 128), (4, 32), (8, 8), (16, 4), (32, 2), (64, 1)])
def test_token_counts(omega, tokens):
    assert pool_tokens(torch.randn(2, 64, 8, 5), omega).shape == (2, tokens, 5)


def test_separate_rates_time_major():
    grid = torch.arange(64 * 8.0).reshape(1, 64, 8, 1)
    pooled = pool_tokens(grid, 8, 1)
    assert pooled.shape == (1, 64, 1)
    first_column = grid[0, :8, 0, 0]
    assert pooled[0, 0, 0] == (first_column.mean() + first_column.max()) / 2
    assert pooled[0, 1, 0] == pooled[0, 0, 0] + 1  # the next frequency comes first


def test_rate_one_is_the_grid_itself():
    grid = torch.randn(1, 64, 8, 3)
    assert torch.equal(pool_tokens(grid, 1), grid.flatten(1, 2))


@pytest.mark.parametrize("size", [(32, 8), (64, 8), (60, 10), (25, 5), (7, 1)])
def test_every_rate_that_divides_the_grid_gives_mean_and_maximum_of_its_cells(size):
    grid = torch.randn(2, *size, 3)
    for time in (rate for rate in range(1, size[0] + 1) if size[0] % rate == 0):
        for freq in (rate for rate in range(1, size[1] + 1) if size[1] % rate == 0):
            cells = grid.unflatten(1, (-1, time)).unflatten(3, (-1, freq))  # (B, T/t, t, F/f, f, D)
            expected = (cells.mean((2, 4)) + cells.amax((2, 4))) / 2
            torch.testing.assert_close(pool_tokens(grid, time, freq), expected.flatten(1, 2))


def test_one_rate_for_both_axes_stops_at_the_whole_frequency_axis():
    grid = torch.randn(1, 32, 8, 3)
    assert torch.equal(pool_tokens(grid, 32), pool_tokens(grid, 32, 8))
    assert pool_tokens(grid, 32).shape == (1, 1, 3)


@pytest.mark.parametrize(
    "rates", [(3, None), (0, None), (2, 16), (128, 8), (-8, 8), (True, None), (2.5, None), ("2", 2)]
)
def test_bad_rates(rates):
    with pytest.raises(InputError, match=r"_pooling: .*; choose one of 1, 2, 4, 8"):
        pool_tokens(torch.randn(1, 64, 8, 3), *rates)


def test_the_message_names_the_rates_of_this_grid():
    with pytest.raises(
        InputError, match=r"^time_pooling: 8; choose one of 1, 2, 3, 4, 6, 12: .* grid has 12 time steps"
    ):
        pool_tokens(torch.randn(1, 12, 8, 3), 8)
    with pytest.raises(InputError, match=r"^freq_pooling: 3; choose one of 1, 2, 4, 8: .* 8 frequency bands"):
        pool_tokens(torch.randn(1, 12, 8, 3), 3)
