"""Batches for the trainer: an order made of arithmetic, and a loader that can begin in the middle of it."""

import itertools
import math
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from apa_lightning.errors import InputError
from apa_lightning.utils.rng import generator_for
from datamodules.shards.indexed import Fetched
from datamodules.shards.quarantine import Quarantine
from datamodules.shards.streamed import StreamedShards

Batch = dict[str, Any]


class SampleOrder:
    """The one global order of training samples; it knows nothing of ranks and workers.

    Random permutations of all samples follow each other without end, each drawn by (seed, its number); epoch e is the
    stretch [e * samples_per_epoch, (e + 1) * samples_per_epoch) of that line.

    Args:
        samples: Number of samples there are.
        samples_per_epoch: Length of an epoch; `samples` makes each epoch one permutation.
        seed: The run's seed.
    """

    def __init__(self, samples: int, samples_per_epoch: int, seed: int) -> None:
        self.samples, self.samples_per_epoch, self.seed = samples, samples_per_epoch, seed
        self._drawn: dict[int, torch.Tensor] = {}

    def __call__(self, epoch: int, position: int) -> tuple[int, int]:
        """(number of the permutation, sample) at `position` of an epoch."""
        number, place = divmod(epoch * self.samples_per_epoch + position, self.samples)
        if number not in self._drawn:
            self._drawn = {k: v for k, v in self._drawn.items() if k == number - 1}  # neighbours are enough
            self._drawn[number] = torch.randperm(self.samples, generator=generator_for(self.seed, "order", number))
        return number, int(self._drawn[number][place])


def collate(fetched: list[Fetched]) -> dict[str, Any]:
    """Join examples to `batch` (None where all were broken), with what the quarantine must hear.

    Tensors are stacked, all else is listed.
    """
    examples = [f.example for f in fetched if f.example is not None]
    batch: Batch | None = None
    if examples:
        columns = {name: [example[name] for example in examples] for name in examples[0]}
        batch = {name: torch.stack(c) if isinstance(c[0], torch.Tensor) else c for name, c in columns.items()}
    return {
        "batch": batch,
        "faults": [fault for f in fetched for fault in f.faults],
        "seen": sum(f.seen for f in fetched),
        "stop": next((f.stop for f in fetched if f.stop), None),
    }


class Reader(Protocol):
    """Reads `count` collated batches of an epoch; `batch` batches and `sample` samples of all ranks lie before."""

    def __call__(self, epoch: int, batch: int, sample: int, count: int) -> Iterable[dict[str, Any]]: ...

    def close(self) -> None: ...


def loader_options(num_workers: int) -> dict[str, Any]:
    """Arguments of every `DataLoader` here."""
    return {
        "num_workers": num_workers,
        "collate_fn": collate,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": _begin_worker,
        # Its own, because a DataLoader draws a seed for its workers at each start, otherwise from the global one.
        "generator": torch.Generator(),
    }


def _begin_worker(worker: int) -> None:
    """One thread; and signals to the whole group of processes, which is how runs are often stopped, leave it at work: the
    step that is finished then still needs its data. It ends when its own process tells it to, or is gone."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # not on macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_by, args=(os.getppid(),), daemon=True).start()


def _end_by(process: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)


class _Plan:
    """The batch sampler of a DataLoader that outlives an epoch: gives whatever batches are put into it."""

    def __init__(self) -> None:
        self.batches: Iterable[list[tuple[int, int]]] = ()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)


class IndexedReader:
    """Reads batches of a dataset whose items are (number of the permutation, sample).

    Only the plan of these numbers travels to the workers, which stay alive.
    Step k of an epoch takes `step = batch_size * world_size` positions, dealt out to the ranks in turn.
    """

    def __init__(
        self,
        dataset: Dataset[Fetched],
        order: SampleOrder,
        batch_size: int,
        rank: int,
        world_size: int,
        num_workers: int,
    ) -> None:
        self._order, self._batch_size, self._rank, self._world_size = order, batch_size, rank, world_size
        self._dataset, self._num_workers = dataset, num_workers
        self._plan = _Plan()
        self._loader: DataLoader | None = None

    def __call__(self, epoch: int, batch: int, sample: int, count: int) -> Iterable[dict[str, Any]]:
        if self._loader is None:
            options = loader_options(self._num_workers)
            self._loader = DataLoader(
                self._dataset, batch_sampler=self._plan, persistent_workers=self._num_workers > 0, **options
            )
        self._plan.batches = self._batches(epoch, sample, count)
        return self._loader

    def close(self) -> None:
        """Let the workers go; another call starts new ones."""
        self._loader = None

    def _batches(self, epoch: int, sample: int, count: int) -> Iterator[list[tuple[int, int]]]:
        step = self._batch_size * self._world_size
        for start in range(sample, sample + count * step, step):
            yield [self._order(epoch, p) for p in range(start + self._rank, start + step, self._world_size)]


class StreamReader:
    """Reads batches of streamed shards; what the epoch has delivered before is read again and passed over."""

    def __init__(self, dataset: StreamedShards, batch_size: int, num_workers: int) -> None:
        self._dataset = dataset
        self._loader: DataLoader = DataLoader(dataset, batch_size=batch_size, **loader_options(num_workers))

    def __call__(self, epoch: int, batch: int, sample: int, count: int) -> Iterable[dict[str, Any]]:
        self._dataset.epoch = epoch  # workers start anew for each epoch and see it
        return itertools.islice(self._loader, batch, batch + count)

    def close(self) -> None:
        """Nothing to let go: workers end with their epoch."""


@dataclass
class _Place:
    """`batch` batches into `epoch`, `sample` samples of all ranks are behind; until here steps had `step_size`."""

    epoch: int
    batch: int
    sample: int
    step_size: int


class TrainLoader:
    """Training batches of one rank: knows its length and its place, and can begin at any place.

    Rule under DDP: every rank takes ceil(samples_per_epoch / (batch_size * world_size)) steps, whatever the shards;
    the last step is filled up with the samples that begin the next epoch.

    Args:
        read: Gives the batches.
        samples_per_epoch: Of all ranks together.
        step_size: batch_size * world_size.
        quarantine: Hears of every broken sample.
        identity: What must be equal for a saved place to mean the same samples.
        batches_done: How many batches of the current epoch the trainer has behind it; None: this loader counts.
        same_epoch: Serve the first epoch again and again, for overfitting on purpose.
    """

    batch_sampler = None  # for Lightning, beside `sampler`

    def __init__(
        self,
        read: Reader,
        samples_per_epoch: int,
        step_size: int,
        quarantine: Quarantine,
        identity: Mapping[str, int | str],
        batches_done: Callable[[], int] | None = None,
        same_epoch: bool = False,
    ) -> None:
        self._read, self._samples_per_epoch, self._step_size = read, samples_per_epoch, step_size
        self._quarantine, self._identity, self._batches_done = quarantine, identity, batches_done
        self._same_epoch = same_epoch
        self._epoch = 0
        self._trainer_epoch: int | None = None
        # A run that ends by max_steps counts its unfinished epoch as done; a longer run that continues it finishes the
        # epoch under the next number. By so many epochs the trainer is ahead.
        self._ahead = 0
        self._yielded = 0
        self._start = _Place(0, 0, 0, step_size)
        self._resumed = False

    def close(self) -> None:
        """End the workers. A worker that only the garbage collector finds takes seconds to end."""
        self._read.close()

    @property
    def sampler(self) -> "TrainLoader":
        """Lightning calls `sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """The trainer's number of the epoch that the next iteration serves."""
        self._trainer_epoch = epoch
        self._epoch = 0 if self._same_epoch else epoch - self._ahead

    def state_dict(self) -> dict[str, int | str]:
        """The place after the last batch handed out; the same on every rank."""
        sample = self._sample_at(self._epoch, self._yielded)
        place = _Place(self._epoch, self._yielded, sample, self._step_size)
        return {**asdict(place), **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved place, perhaps of a run with another batch size or number of ranks.

        Raises:
            InputError: The data or the seed are not those of the saved run.
        """
        for name, value in self._identity.items():
            if state.get(name, value if name == "digest" else None) != value:  # older checkpoints know no digest
                raise InputError(
                    f"the checkpoint's training data had {name} = {state.get(name)}, and now it is {value}, so its "
                    "place in the data is lost. Give the same data settings, or start anew from the adapter file."
                )
        self._start = _Place(**{field: int(state[field]) for field in _Place.__dataclass_fields__})
        self._epoch, self._yielded, self._resumed = self._start.epoch, self._start.batch, True

    def _sample_at(self, epoch: int, batch: int) -> int:
        start = self._start
        if start.epoch != epoch:
            return batch * self._step_size
        ahead = batch - start.batch
        # A batch may have been handed out and not finished when the place was saved; then it is taken back.
        return start.sample + ahead * (self._step_size if ahead > 0 else start.step_size)

    def __len__(self) -> int:
        """Batches of the current epoch, those behind included."""
        batch = self._start.batch if self._start.epoch == self._epoch else 0
        left = self._samples_per_epoch - self._sample_at(self._epoch, batch)
        return batch + math.ceil(max(0, left) / self._step_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator, so all of this waits for the first batch: then Lightning has set the epoch and its own place.
        if self._batches_done is not None:
            batch = self._batches_done()
        else:
            batch = self._yielded if self._resumed else 0
        if self._resumed and self._trainer_epoch is not None and not self._same_epoch:
            finished = batch == 0 and self._start.sample >= self._samples_per_epoch
            self._epoch = self._start.epoch + finished
            self._ahead = self._trainer_epoch - self._epoch
        epoch = self._epoch
        self._start = _Place(epoch, batch, self._sample_at(epoch, batch), self._step_size)
        self._yielded, self._resumed = batch, False
        self._quarantine.start_epoch()
        count = len(self) - batch
        for number, loaded in enumerate(self._read(epoch, batch, self._start.sample, count), start=1):
            self._quarantine.note(loaded["faults"], loaded["seen"])
            if loaded["stop"]:
                raise InputError(f"the training data cannot be used: {loaded['stop']}.{self._quarantine.where()}")
            if number == count:  # before the last batch: a trainer that knows the length does not ask for more
                self._quarantine.finish_epoch()
            self._yielded += 1
            yield loaded["batch"]


def evaluation_plan(samples: int, wanted: int | None, batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    """Batches of sample numbers for one rank: each of `wanted` samples, spread evenly over all, on one rank only.

    All ranks get equally many batches, of nearly equal size, because a rank with fewer could keep the others waiting.
    With batch_size 1 that may take a batch of 2.
    """
    number = min(samples, wanted or samples)
    own = [i * samples // number for i in range(number)][rank::world_size]
    steps = max(1, min(math.ceil(math.ceil(number / world_size) / batch_size), number // world_size))
    ends = [-(-len(own) * step // steps) for step in range(steps + 1)]  # rounded up: the larger batches come first
    return [own[start:end] for start, end in itertools.pairwise(ends)]


class EvaluationLoader:
    """Validation batches of one rank: each sample once over all ranks; broken ones make batches smaller.

    Args:
        loader: Gives collated batches.
        quarantine: Hears of every broken sample.
        length: Number of batches, or None where it is not known (streams).
    """

    def __init__(self, loader: DataLoader, quarantine: Quarantine, length: int | None) -> None:
        self._loader, self._quarantine, self._length = loader, quarantine, length

    def __len__(self) -> int:
        if self._length is None:
            raise TypeError("streamed shards have no length")
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        self._quarantine.start_epoch()
        for number, loaded in enumerate(self._loader, start=1):
            self._quarantine.note(loaded["faults"], loaded["seen"])
            if number == self._length:
                self._quarantine.finish_epoch()
            if loaded["batch"] is not None:
                yield loaded["batch"]
        self._quarantine.start_epoch()
