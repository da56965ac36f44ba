"""Frequencies of the training draws, and what a dropped audio prompt is."""

import pytest
import torch
from scipy.stats import chisquare

from apa_lightning.conditioning.dropout import ConditionDropout, PoolingRates, audio_tokens
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.errors import InputError
from apa_lightning.utils.rng import generator_for

STEPS, BATCH = 2_000, 32


def recorded_draws(dropout: ConditionDropout) -> tuple[torch.Tensor, torch.Tensor]:
    """What `training_step` draws: one generator per step, which gives omega first and the dropout after it."""
    masks = []
    for step in range(STEPS):
        draw = generator_for(0, "fit", step, 0)
        PoolingRates().draw(draw)
        masks.append(dropout.draw(BATCH, draw))
    return torch.cat([text for text, _ in masks]), torch.cat([audio for _, audio in masks])


def test_exclusive_dropout_frequencies():
    text, audio = recorded_draws(ConditionDropout())
    observed = [(text & ~audio).sum(), (audio & ~text).sum(), (text & audio).sum(), (~text & ~audio).sum()]
    expected = [share * STEPS * BATCH for share in (0.05, 0.05, 0.05, 0.85)]
    assert chisquare([int(n) for n in observed], expected).pvalue > 0.01


def test_independent_dropout_frequencies():
    text, audio = recorded_draws(ConditionDropout(scheme="independent"))
    observed = [(text & ~audio).sum(), (audio & ~text).sum(), (text & audio).sum(), (~text & ~audio).sum()]
    expected = [share * STEPS * BATCH for share in (0.05 * 0.95, 0.05 * 0.95, 0.05**2, 0.95**2)]
    assert chisquare([int(n) for n in observed], expected).pvalue > 0.01


def test_omega_frequencies():
    rates = PoolingRates()
    drawn = torch.tensor([rates.draw(generator_for(0, "fit", step, 0)) for step in range(STEPS)])
    assert chisquare([int((drawn == omega).sum()) for omega in (1, 2, 4, 8)]).pvalue > 0.01


def test_omega_and_dropout_are_independent():
    """They share a generator: a step's omega must not say which items it drops."""
    rates, dropout = PoolingRates(), ConditionDropout(text=0.3, audio=0.0, both=0.0)
    shares: dict[int, list[float]] = {}
    for step in range(STEPS):
        draw = generator_for(0, "fit", step, 0)
        shares.setdefault(rates.draw(draw), []).append(float(dropout.draw(BATCH, draw)[0].float().mean()))
    for values in shares.values():
        mean, error = torch.tensor(values).mean(), torch.tensor(values).std() / len(values) ** 0.5
        assert abs(mean - 0.3) < 4 * error


@pytest.mark.parametrize("silence", [None, torch.randn(1, 8, 8, 3)])
def test_dropped_items_are_replaced(silence):
    grid = torch.randn(3, 8, 8, 3)
    loa = audio_tokens(grid, torch.tensor([False, True, False]), 2, silence)
    expected = pool_tokens(grid, 2)
    assert torch.equal(loa[[0, 2]], expected[[0, 2]])
    assert torch.equal(loa[1], torch.zeros_like(loa[1]) if silence is None else pool_tokens(silence, 2)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text": 1.5}, r"condition_dropout\.text"),
        ({"audio": -0.1}, r"condition_dropout\.audio"),
        ({"scheme": "both"}, "scheme"),
        ({"text": 0.5, "audio": 0.5, "both": 0.5}, "exceed 1"),
        ({"both": float("nan")}, r"condition_dropout\.both"),
    ],
)
def test_bad_dropout(settings, message):
    with pytest.raises(InputError, match=message):
        ConditionDropout(**settings)


@pytest.mark.parametrize("rates", [[], [1.5], [0], [1, True]])
def test_bad_rates(rates):
    with pytest.raises(InputError, match="pooling_rates"):
        PoolingRates(rates)
