"""The order of training samples and the batches of validation samples, both plain arithmetic."""

import itertools
import math
from collections.abc import Iterator

import torch

from apa_lightning.utils.rng import generator_for


class SampleOrder:
    """The global order of training samples, independent of ranks and workers.

    Random permutations of all samples follow each other without end, each drawn from (seed, its number); epoch e is the
    part [e * samples_per_epoch, (e + 1) * samples_per_epoch) of that sequence.

    Args:
        samples: Number of samples.
        samples_per_epoch: Length of an epoch; `samples` makes each epoch one permutation.
        seed: Seed of the run.
    """

    def __init__(self, samples: int, samples_per_epoch: int, seed: int) -> None:
        self.samples, self.samples_per_epoch, self.seed = samples, samples_per_epoch, seed
        self._drawn: dict[int, torch.Tensor] = {}
        self._type = torch.int32 if samples < 2**31 else torch.int64

    def __call__(self, epoch: int, position: int) -> tuple[int, int]:
        """Return (number of the permutation, sample) at `position` of an epoch."""
        number, place = divmod(epoch * self.samples_per_epoch + position, self.samples)
        if number not in self._drawn:
            self._drawn = {k: v for k, v in self._drawn.items() if k == number - 1}  # neighbors are enough
            drawn = torch.randperm(self.samples, generator=generator_for(self.seed, "order", number))
            self._drawn[number] = drawn.to(self._type)
        return number, int(self._drawn[number][place])


class EvaluationPlan:
    """Batches of sample numbers for one rank; each sample is on one rank only.

    All ranks get the same number of batches, of nearly equal size, because a rank with fewer could keep the others waiting.
    With batch_size 1 this may need a batch of 2.

    Args:
        samples: Number of samples.
        wanted: Use only so many of them, spread evenly; None: all.
        batch_size: Most samples of a batch.
        rank: Rank of this process.
        world_size: Number of processes.
    """

    def __init__(self, samples: int, wanted: int | None, batch_size: int, rank: int, world_size: int) -> None:
        self._samples, self._number = samples, min(samples, wanted or samples)
        self._own = range(rank, self._number, world_size)
        most = math.ceil(math.ceil(self._number / world_size) / batch_size)
        self._batches = max(1, min(most, self._number // world_size))

    def __len__(self) -> int:
        return self._batches

    def __iter__(self) -> Iterator[list[int]]:
        ends = (
            -(-len(self._own) * step // len(self)) for step in range(len(self) + 1)
        )  # the larger batches come first
        for start, end in itertools.pairwise(ends):
            yield [i * self._samples // self._number for i in self._own[start:end]]
