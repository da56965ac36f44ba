"""Loaders for the trainer: training batches that can resume at any place, and validation batches."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch.utils.data import DataLoader

from apa_lightning.errors import InputError
from datamodules.loading.readers import Batch, Reader
from datamodules.shards.quarantine import Quarantine


@dataclass
class _Place:
    """A place in the training data.

    Attributes:
        epoch: Number of the epoch.
        batch: Batches of it that are done.
        sample: Samples of it, of all ranks, that are done.
        step_size: Samples of all ranks in one step until here.
    """

    epoch: int
    batch: int
    sample: int
    step_size: int


class TrainLoader:
    """Training batches of one rank, with a length and a place at which it can resume.

    Under DDP every rank takes ceil(samples_per_epoch / (batch_size * world_size)) steps, whatever the shards; the last step
    is filled up with the first samples of the next epoch.

    Args:
        read: Reads the batches.
        samples_per_epoch: Samples of all ranks together in one epoch.
        step_size: batch_size * world_size.
        quarantine: Collects the broken samples.
        identity: Properties of the data that must be equal for a saved place to mean the same samples.
        batches_done: Returns how many batches of the current epoch the trainer has done; None: this loader counts.
        same_epoch: Whether to repeat the first epoch, for overfitting on purpose.
    """

    batch_sampler = None  # Lightning reads it in addition to `sampler`

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
        # Epochs that the trainer's number is ahead: a run that ends by max_steps counts its unfinished epoch as done, and a
        # longer run that resumes it finishes that epoch under the next number.
        self._ahead = 0
        self._yielded = 0
        self._start = _Place(0, 0, 0, step_size)
        self._resumed = False

    def close(self) -> None:
        """End the workers. Otherwise the garbage collector ends them, which takes seconds."""
        self._read.close()

    @property
    def sampler(self) -> "TrainLoader":
        """This object, because Lightning calls `sampler.set_epoch`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Take the trainer's number of the next epoch."""
        self._trainer_epoch = epoch
        self._epoch = 0 if self._same_epoch else epoch - self._ahead

    def state_dict(self) -> dict[str, int | str]:
        """The place after the last batch that was delivered; the same on every rank."""
        sample = self._sample_at(self._epoch, self._yielded)
        place = _Place(self._epoch, self._yielded, sample, self._step_size)
        return {**asdict(place), **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume at a saved place; the batch size and the number of ranks may differ from those of the saved run.

        Raises:
            InputError: If the data or the seed differ from those of the saved run.
        """
        if ("samples" in state) != ("samples" in self._identity):
            before, now = ("read by index", "streamed") if "samples" in state else ("streamed", "read by index")
            raise InputError(
                f"The checkpoint's training data were {before}, and now they are {now}, which is another order. "
                + ("Set `stream` to true to resume." if now == "read by index" else "Give the same shards to resume.")
            )
        for name, value in self._identity.items():
            if state.get(name, value if name == "digest" else None) != value:  # older checkpoints have no digest
                raise InputError(
                    f"The checkpoint's training data had {name} = {state.get(name)}, and now it is {value}, so training "
                    "cannot resume at its place. Give the same data settings, or start a new run from the adapter file."
                )
        self._start = _Place(**{field: int(state[field]) for field in _Place.__dataclass_fields__})
        self._epoch, self._yielded, self._resumed = self._start.epoch, self._start.batch, True

    def _sample_at(self, epoch: int, batch: int) -> int:
        start = self._start
        if start.epoch != epoch:
            return batch * self._step_size
        ahead = batch - start.batch
        # A batch may have been delivered but not finished when the place was saved; then it is delivered again.
        return start.sample + ahead * (self._step_size if ahead > 0 else start.step_size)

    def __len__(self) -> int:
        """Batches of the current epoch, including those that are done."""
        batch = self._start.batch if self._start.epoch == self._epoch else 0
        left = self._samples_per_epoch - self._sample_at(self._epoch, batch)
        return batch + math.ceil(max(0, left) / self._step_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator runs nothing before its first batch is asked for; by then Lightning has set the epoch and its own place.
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
                raise InputError(f"The training data cannot be used: {loaded['stop']}.{self._quarantine.where()}")
            if number == count:  # before the last batch: a trainer that knows the length does not ask for another one
                self._quarantine.finish_epoch()
            self._yielded += 1
            yield loaded["batch"]


class EvaluationLoader:
    """Validation batches of one rank. Each sample comes once over all ranks; broken samples make batches smaller.

    Args:
        loader: Loader of collated batches.
        quarantine: Collects the broken samples.
        length: Number of batches, or None if it is unknown (streams).
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
            if loaded["stop"]:
                raise InputError(f"The validation data cannot be used: {loaded['stop']}.{self._quarantine.where()}")
            if number == self._length:
                self._quarantine.finish_epoch()
            if loaded["batch"] is not None:
                yield loaded["batch"]
        self._quarantine.start_epoch()
