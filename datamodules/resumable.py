"""Base class of data modules whose training resumes exactly where a checkpoint was written."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from apa_lightning.errors import InputError
from apa_lightning.utils.lightning_compat import batches_started
from datamodules.loading.loaders import EvaluationLoader, TrainLoader
from datamodules.loading.order import EvaluationPlan, SampleOrder
from datamodules.loading.readers import IndexedReader, Reader, loader_options
from datamodules.shards.indexed import NumberedSamples
from datamodules.shards.quarantine import Quarantine


class ResumableDataModule(LightningDataModule):
    """Makes loaders of samples that are read by number, and keeps the training loader and its place in the data."""

    batch_size: int
    num_workers: int
    seed: int

    def __init__(self) -> None:
        super().__init__()
        self._train_loader: TrainLoader | None = None
        self._resume: dict[str, Any] | None = None

    @property
    def rank(self) -> int:
        """Rank of this process."""
        return self.trainer.global_rank if self.trainer is not None else 0

    @property
    def world_size(self) -> int:
        """Number of processes of the run."""
        return self.trainer.world_size if self.trainer is not None else 1

    def forget_place(self) -> None:
        """Drop the place of an earlier fit."""
        self._train_loader = self._resume = None

    def make_train_loader(
        self, read: Reader, samples_per_epoch: int, quarantine: Quarantine, identity: Mapping[str, int | str]
    ) -> TrainLoader:
        """Make the training loader, at the place of the checkpoint if there is one (see `TrainLoader`)."""
        trainer = self.trainer
        self._train_loader = TrainLoader(
            read,
            samples_per_epoch,
            self.batch_size * self.world_size,
            quarantine,
            identity,
            # Lightning's own count includes a batch that was delivered and not finished.
            partial(batches_started, trainer) if trainer else None,
            same_epoch=bool(trainer and trainer.overfit_batches > 0),  # type: ignore[attr-defined]
        )
        if self._resume is not None:
            self._train_loader.load_state_dict(self._resume)
            self._resume = None
        return self._train_loader

    def indexed_train_loader(
        self, dataset: NumberedSamples, per_epoch: int, quarantine: Quarantine, identity: Mapping[str, int | str]
    ) -> TrainLoader:
        """Make the training loader of a dataset; its order depends on (seed, epoch) alone."""
        order = SampleOrder(len(dataset), per_epoch, self.seed)
        reader = IndexedReader(dataset, order, self.batch_size, self.rank, self.world_size, self.num_workers)
        return self.make_train_loader(reader, per_epoch, quarantine, identity)

    def indexed_evaluation_loader(
        self, dataset: NumberedSamples, wanted: int | None, quarantine: Quarantine, field: str
    ) -> EvaluationLoader:
        """Make the validation loader of a dataset, the same in every epoch.

        Args:
            dataset: The samples.
            wanted: Use only so many of them, spread evenly; None: all.
            quarantine: Collects the broken samples.
            field: Name of the setting `wanted`, for messages.

        Raises:
            InputError: If there are fewer samples than processes.
        """
        if min(len(dataset), wanted or len(dataset)) < self.world_size:
            raise InputError(
                f"validation_shards: fewer clips than the {self.world_size} processes, and each needs at least one. "
                f"Give more clips, raise `{field}`, or use fewer devices."
            )
        plan = EvaluationPlan(len(dataset), wanted, self.batch_size, self.rank, self.world_size)
        loader: DataLoader = DataLoader(dataset, batch_sampler=plan, **loader_options(self.num_workers))
        return EvaluationLoader(loader, quarantine, len(plan))

    def teardown(self, stage: str) -> None:
        """End the training workers."""
        if stage == "fit" and self._train_loader is not None:
            self._train_loader.close()

    def on_exception(self, exception: BaseException) -> None:
        """End the training workers."""
        self.teardown("fit")

    def state_dict(self) -> dict[str, Any]:
        """The place in the training data, for the trainer's checkpoint."""
        return {"train": self._train_loader.state_dict()} if self._train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume at the place in the training data where the checkpoint was written.

        Lightning restores a loader's own state too late if `estimated_stepping_batches` was read before; it restores the
        data module's in time.
        """
        self._resume = state_dict.get("train")
        if self._train_loader is not None and self._resume is not None:
            self._train_loader.load_state_dict(self._resume)
