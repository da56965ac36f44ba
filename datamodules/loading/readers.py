"""Readers of batches, from shards with an index and from streamed ones, through torch's DataLoader."""

import itertools
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from datamodules.loading.order import SampleOrder
from datamodules.shards.indexed import Fetched
from datamodules.shards.streamed import StreamedShards

Batch = dict[str, Any]


SELF_PROMPT = {"prompt_waveform": "waveform", "prompt_num_samples": "num_samples", "prompt_grid": "grid"}
"""Columns of samples whose audio prompt is not the target, and the columns that stand for them in other samples."""


def collate(fetched: list[Fetched]) -> dict[str, Any]:
    """Collate examples to `batch` (None if all were broken), with the faults for the quarantine.

    Tensors are stacked, everything else is listed. A batch has the columns of an audio prompt if one of its samples has
    them; the others are then their own audio prompts.
    """
    examples = [f.example for f in fetched if f.example is not None]
    batch: Batch | None = None
    if examples:
        names = dict.fromkeys(name for example in examples for name in example)
        columns = {name: [e[name] if name in e else e[SELF_PROMPT[name]] for e in examples] for name in names}
        batch = {name: torch.stack(c) if isinstance(c[0], torch.Tensor) else c for name, c in columns.items()}
    return {
        "batch": batch,
        "faults": [fault for f in fetched for fault in f.faults],
        "seen": sum(f.seen for f in fetched),
        "stop": next((f.stop for f in fetched if f.stop), None),
    }


class Reader(Protocol):
    """Protocol of the objects that read collated batches."""

    def __call__(self, epoch: int, batch: int, sample: int, count: int) -> Iterable[dict[str, Any]]:
        """Read `count` batches of an epoch, after its first `batch` batches, which are `sample` samples of all ranks."""

    def close(self) -> None:
        """End the workers."""


def loader_options(num_workers: int) -> dict[str, Any]:
    """Arguments that every `DataLoader` of the data modules has."""
    return {
        "num_workers": num_workers,
        "collate_fn": collate,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": _start_worker,
        # A generator of its own: a DataLoader draws a seed for its workers at each start, by default from the global one.
        "generator": torch.Generator(),
    }


def _start_worker(worker: int) -> None:
    """Use one thread, and ignore signals that are sent to the whole process group, as runs are often stopped.

    The training step that is then finished still needs its data. The worker ends when its parent process tells it to.
    """
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):  # not on macOS
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_on_signal_of, args=(os.getppid(),), daemon=True).start()


def _end_on_signal_of(process: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)


class _Plan:
    """Batch sampler whose batches can be replaced, for a DataLoader that lives longer than an epoch."""

    def __init__(self) -> None:
        self.batches: Iterable[list[tuple[int, int]]] = ()

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.batches)


class IndexedReader:
    """Reads batches of a dataset whose items are (number of the permutation, sample).

    The workers stay alive between epochs; only these numbers are sent to them. Each step of an epoch takes
    batch_size * world_size positions of the order, which are dealt to the ranks in turn.
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
        """End the workers; the next call starts new ones."""
        self._loader = None

    def _batches(self, epoch: int, sample: int, count: int) -> Iterator[list[tuple[int, int]]]:
        step = self._batch_size * self._world_size
        for start in range(sample, sample + count * step, step):
            yield [self._order(epoch, p) for p in range(start + self._rank, start + step, self._world_size)]


class StreamReader:
    """Reads batches of streamed shards; on resuming, samples that the epoch delivered before are read again and skipped."""

    def __init__(self, dataset: StreamedShards, batch_size: int, num_workers: int) -> None:
        self._dataset = dataset
        self._loader: DataLoader = DataLoader(dataset, batch_size=batch_size, **loader_options(num_workers))

    def __call__(self, epoch: int, batch: int, sample: int, count: int) -> Iterable[dict[str, Any]]:
        self._dataset.epoch = epoch  # workers start anew for each epoch and see it
        return itertools.islice(self._loader, batch, batch + count)

    def close(self) -> None:
        """Do nothing: the workers end with their epoch."""
