"""Token counts and values of the pooled grid."""

import pytest
import torch

from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.errors import InputError


@pytest.mark.parametrize(("omega", "tokens"), [(1, 512), (2, 128), (4, 32), (8, 8)])
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


@pytest.mark.parametrize("rates", [(3, None), (0, None), (2, 16), (True, None), (2.5, None)])
def test_bad_rates(rates):
    with pytest.raises(InputError, match=r"_pooling: .* choose one of 1, 2, 4, 8"):
        pool_tokens(torch.randn(1, 64, 8, 3), *rates)


def test_rate_larger_than_grid():
    with pytest.raises(InputError, match="larger than the audio encoder's grid of 4 x 8"):
        pool_tokens(torch.randn(1, 4, 8, 3), 8)
