"""The order of training samples and the batches of validation samples, both plain arithmetic."""

import itertools
import math

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

    def __call__(self, epoch: int, position: int) -> tuple[int, int]:
        """Return (number of the permutation, sample) at `position` of an epoch."""
        number, place = divmod(epoch * self.samples_per_epoch + position, self.samples)
        if number not in self._drawn:
            self._drawn = {k: v for k, v in self._drawn.items() if k == number - 1}  # neighbors are enough
            self._drawn[number] = torch.randperm(self.samples, generator=generator_for(self.seed, "order", number))
        return number, int(self._drawn[number][place])


def evaluation_plan(samples: int, wanted: int | None, batch_size: int, rank: int, world_size: int) -> list[list[int]]:
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
    number = min(samples, wanted or samples)
    own = [i * samples // number for i in range(number)][rank::world_size]
    steps = max(1, min(math.ceil(math.ceil(number / world_size) / batch_size), number // world_size))
    ends = [-(-len(own) * step // steps) for step in range(steps + 1)]  # rounded up: the larger batches come first
    return [own[start:end] for start, end in itertools.pairwise(ends)]
