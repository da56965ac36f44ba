"""Drawing codes from logits by uniform numbers."""

import torch

from apa_lightning.tokens.delay_pattern import delayed, undelayed
from apa_lightning.tokens.sampling import drawn, random_numbers


def test_codes_are_drawn_by_their_probability():
    probabilities = torch.tensor([0.1, 0.0, 0.6, 0.3])
    numbers = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    logits = probabilities.log().expand(1000, 4)
    assert drawn(logits, numbers).bincount(minlength=4).tolist() == [100, 0, 600, 300]
    assert drawn(logits, numbers, top_k=2).bincount(minlength=4).tolist() == [0, 0, 667, 333]
    sharper = drawn(logits, numbers, temperature=0.5).bincount(minlength=4)
    assert sharper.tolist() == [22, 0, 782, 196]  # squares: 0.01, 0.36 and 0.09 of 0.46
    assert drawn(logits, numbers, temperature=0).unique().tolist() == [2]


def test_ends_of_the_range():
    logits, numbers = torch.randn(2, 50), torch.tensor([0.0, 1 - 1e-16], dtype=torch.float64)
    least = logits.topk(3).values[:, -1:]
    codes = drawn(logits, numbers, top_k=3)
    assert (logits.gather(1, codes[:, None]) >= least).all()


def test_a_code_has_the_same_number_in_every_batch_and_length():
    numbers = random_numbers([1, 2], 4, 10)
    assert torch.equal(random_numbers([2], 4, 6)[0], numbers[1, :, :6])
    assert not torch.equal(numbers[0], numbers[1])


def test_the_delay_pattern_can_be_undone_and_ends_with_each_item():
    codes = torch.arange(24).reshape(2, 3, 4)
    sequence = delayed(codes, -7)
    assert sequence[0].tolist() == [
        [-7, 0, 1, 2, 3, -7, -7],
        [-7, -7, 4, 5, 6, 7, -7],
        [-7, -7, -7, 8, 9, 10, 11],
    ]
    assert torch.equal(undelayed(sequence), codes) and torch.equal(undelayed(sequence[:, :, 1:], start=1), codes)
    shorter = undelayed(delayed(codes, -7, torch.tensor([4, 2])))
    assert torch.equal(shorter[0], codes[0]) and (shorter[1, :, 2:] == -7).all()
