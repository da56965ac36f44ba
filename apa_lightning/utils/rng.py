"""Explicit random generators, so that every draw depends on (seed, counter, ...) alone and resumes exactly."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def generator_for(*key: int | str) -> torch.Generator:
    """A CPU generator seeded by a hash of ``key``, for example ``generator_for(seed, "noise", step, rank)``."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def randn(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal noise drawn on the CPU (the same on every device), with ``like``'s device and dtype."""
    # float32 by name: under Lightning's bf16-true the default type is another, and with it the draws
    return torch.randn(shape, generator=generator, dtype=torch.float32).to(like)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generator inside the block, for libraries that draw from it; restore its state afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
