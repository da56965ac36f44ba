"""Training and validation data of the pocket's U-Net: windows that its frozen parts have encoded once."""

from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch.utils.data import DataLoader

from apa_lightning.errors import InputError
from apa_lightning.pocket.window_encoder import fingerprint
from apa_lightning.utils.lightning_compat import batches_started
from datamodules.encoded_windows import EncodedWindows, Piece, encode_missing, missing, pieces
from datamodules.shards.captions import CaptionTemplates
from datamodules.shards.indexed import SampleTable
from datamodules.shards.loading import (
    EvaluationLoader,
    IndexedReader,
    SampleOrder,
    TrainLoader,
    evaluation_plan,
    loader_options,
)
from datamodules.shards.quarantine import Quarantine
from datamodules.shards.urls import expand_shards, is_local

_PREFIX = "--data.init_args."


class EncodedDataModule(LightningDataModule):
    """Encoded windows of local WebDataset shards (`<key>.flac` + `<key>.json` with `labels`).

    What is not encoded yet is encoded before training begins, on the trainer's device. Batches are `mean` and `std`
    (B, C, T, F) of the scaled latents, `grid` (B, T', F', D), AudioMAE's unpooled tokens, all in half precision, and `key`,
    `prompt`, `labels` and `metadata` (lists of B). The order of training depends on (seed, epoch) alone and is resumed
    exactly. Validation takes the first window of each clip, so that neighbours in a batch are different clips.

    Args:
        folder: The pocket backbone's; its `vae` and `audio_encoder` are read.
        train_shards: Local paths, brace expressions (`a-{000..099}.tar`) or wildcards; one or a list.
        validation_shards: Likewise. Null: no validation.
        cache: Folder of the encodings. Of 1,000 clips with two windows each they take 300 MB.
        clips: Use the first so many training clips only; null: all.
        validation_clips: Use so many validation clips, spread evenly over the shards; null: all.
        windows_per_clip: Windows taken of each clip, one after the other from its start.
        batch_size: Windows per step and rank.
        num_workers: Processes per rank that read; 0 reads in the training process, which takes a millisecond.
        seed: Of order and captions.

    Raises:
        InputError: A setting cannot be.
    """

    def __init__(
        self,
        folder: Path = Path("runs/pocket/model"),
        train_shards: str | list[str] = "runs/pocket/music/train-*.tar",
        validation_shards: str | list[str] | None = "runs/pocket/music/validation-*.tar",
        cache: Path = Path("runs/pocket/encoded"),
        clips: int | None = None,
        validation_clips: int | None = None,
        windows_per_clip: int = 2,
        batch_size: int = 16,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("clips", clips, 1),
            ("validation_clips", validation_clips, 1),
            ("windows_per_clip", windows_per_clip, 1),
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
        ):
            if value is not None and value < least:
                raise InputError(f"{_PREFIX}{name} is {value}; it must be at least {least}.")
        self.folder, self.cache = Path(folder), Path(cache)
        self.train_shards, self.validation_shards = train_shards, validation_shards
        self.clips, self.validation_clips, self.windows_per_clip = clips, validation_clips, windows_per_clip
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self._windows: dict[str, EncodedWindows] = {}
        self._train_loader: TrainLoader | None = None
        self._resume: dict[str, int] | None = None

    # --- what there is ------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Encode what is missing, in one process.

        Raises:
            FileNotFoundError, InputError: Shards are missing, empty or remote; `folder` lacks a part; `cache` was made of
                something else.
        """
        device = self.trainer.strategy.root_device if self.trainer else "cpu"
        for split in self._splits():
            table, wanted = self._pieces(split)
            quarantine = Quarantine(split, 0.05)
            quarantine.located(table.faults, len(table))
            encode_missing(table, wanted, self.folder, self.windows_per_clip, quarantine, device)

    def setup(self, stage: str) -> None:
        """Open the encodings.

        Raises:
            InputError: They are not there, or were made of something else.
        """
        self._train_loader = self._resume = None  # of an earlier fit
        for split in self._splits() if stage == "fit" else self._splits()[:1]:
            _, wanted = self._pieces(split)
            if missing(wanted, fingerprint(self.folder), self.windows_per_clip):
                raise InputError(f"{_PREFIX}cache: {self.cache} lacks encodings; another process has not made them.")
            training = split == "train"
            self._windows[split] = EncodedWindows(
                wanted, CaptionTemplates(), self.seed, self.clips if training else None, first_only=not training
            )
            rank_zero_info(f"{split}: {len(self._windows[split])} windows in {self.cache}")

    def _splits(self) -> list[str]:
        return ["train"] if self.validation_shards is None else ["validation", "train"]

    def _pieces(self, split: str) -> tuple[SampleTable, list[Piece]]:
        names = self.train_shards if split == "train" else self.validation_shards
        urls = expand_shards(f"{_PREFIX}{split}_shards", names or [], True, split)  # a command is none of these
        if remote := [url for url in urls if not is_local(url)]:
            raise InputError(f"{_PREFIX}{split}_shards: {remote[0]} is not local. Download it and give its path.")
        table = SampleTable([Path(url) for url in urls])
        return table, pieces(table, self.cache, self.clips if split == "train" else None)

    # --- loaders ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> TrainLoader:
        """Training batches of this rank."""
        trainer, windows = self.trainer, self._windows["train"]
        rank, world_size = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        order = SampleOrder(len(windows), len(windows), self.seed)
        self._train_loader = TrainLoader(
            IndexedReader(windows, order, self.batch_size, rank, world_size, self.num_workers),
            len(windows),
            self.batch_size * world_size,
            Quarantine("train", 0.0),
            {"samples": len(windows), "seed": self.seed},
            partial(batches_started, trainer) if trainer else None,
            same_epoch=bool(trainer and trainer.overfit_batches > 0),  # type: ignore[attr-defined]
        )
        if self._resume is not None:
            self._train_loader.load_state_dict(self._resume)
            self._resume = None
        return self._train_loader

    def val_dataloader(self) -> EvaluationLoader | list[Any]:
        """Validation batches of this rank, always the same."""
        if (windows := self._windows.get("validation")) is None:
            return []
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        if min(len(windows), self.validation_clips or len(windows)) < world_size:
            raise InputError(f"{_PREFIX}validation_clips: fewer than the {world_size} processes; each needs one.")
        plan = evaluation_plan(len(windows), self.validation_clips, self.batch_size, rank, world_size)
        loader: DataLoader = DataLoader(windows, batch_sampler=plan, **loader_options(self.num_workers))
        return EvaluationLoader(loader, Quarantine("validation", 0.0), len(plan))

    def teardown(self, stage: str) -> None:
        """End the training workers."""
        if stage == "fit" and self._train_loader is not None:
            self._train_loader.close()

    def on_exception(self, exception: BaseException) -> None:
        """End the training workers."""
        self.teardown("fit")

    # --- resuming -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The place in the training data, for the trainer's checkpoint."""
        return {"train": self._train_loader.state_dict()} if self._train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue at the place in the training data where the checkpoint was written."""
        self._resume = state_dict.get("train")
        if self._train_loader is not None and self._resume is not None:
            self._train_loader.load_state_dict(self._resume)
