"""Training and validation data of the pocket's U-Net: windows that its frozen parts have encoded once."""

from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from apa_lightning.errors import InputError
from apa_lightning.pocket.window_encoder import fingerprint
from datamodules.encoded_windows import EncodedWindows, Piece, encode_missing, missing, pieces
from datamodules.loading.loaders import EvaluationLoader, TrainLoader
from datamodules.ranges import check_range
from datamodules.resumable import ResumableDataModule
from datamodules.shards.captions import CaptionTemplates
from datamodules.shards.indexed import SampleTable
from datamodules.shards.quarantine import Quarantine
from datamodules.shards.urls import expand_local_shards


class EncodedDataModule(ResumableDataModule):
    """Encoded windows of local WebDataset shards (`<key>.flac` + `<key>.json` with `labels`).

    Windows without encodings are encoded before training starts, on the trainer's device. Batches are `mean` and `std`
    (B, C, T, F) of the scaled latents, `grid` (B, T', F', D), AudioMAE's unpooled tokens, all in half precision, and `key`,
    `prompt`, `labels` and `metadata` (lists of B). With `<key>.prompt.flac`, an audio prompt other than the target, in at
    least one of the clips there is also `prompt_grid` (B, T', F', D), the tokens of the audio prompts. The order of
    training depends on (seed, epoch) alone and resumes exactly. Validation takes the first window of each clip, so that
    neighbors in a batch are different clips.

    Args:
        folder: Folder of the pocket backbone; its `vae` and `audio_encoder` are read.
        train_shards: Local paths, brace expressions (`a-{000..099}.tar`) or wildcards; one or a list.
        validation_shards: The same for validation. Null: no validation.
        cache: Folder of the encodings. They take 300 MB for 1,000 clips with two windows each.
        clips: Use only the first so many training clips; null: all.
        validation_clips: Use so many validation clips, spread evenly over the shards; null: all.
        windows_per_clip: Windows taken of each clip, one after the other from its start.
        batch_size: Windows per step and rank.
        num_workers: Processes per rank that read; 0 reads in the training process, which takes a millisecond.
        seed: Seed of order and captions.

    Raises:
        InputError: If a setting is out of range.
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
        check_range("clips", clips, int | None, 1)
        check_range("validation_clips", validation_clips, int | None, 1)
        check_range("windows_per_clip", windows_per_clip, int, 1)
        check_range("batch_size", batch_size, int, 1)
        check_range("num_workers", num_workers, int, 0)
        self.folder, self.cache = Path(folder), Path(cache)
        self.train_shards, self.validation_shards = train_shards, validation_shards
        self.clips, self.validation_clips, self.windows_per_clip = clips, validation_clips, windows_per_clip
        self.batch_size, self.num_workers, self.seed = batch_size, num_workers, seed
        self._windows: dict[str, EncodedWindows] = {}

    # --- encodings ------------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Encode the windows that have no encodings yet, in one process.

        Raises:
            FileNotFoundError: If shards are missing.
            InputError: If shards are empty or remote, `folder` lacks a part, or `cache` was made of other clips or weights.
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
            InputError: If they are missing, or were made of other clips or weights.
        """
        self.forget_place()
        for split in self._splits() if stage == "fit" else self._splits()[:1]:
            _, wanted = self._pieces(split)
            if missing(wanted, fingerprint(self.folder), self.windows_per_clip):
                raise InputError(f"cache: {self.cache} lacks encodings; the process that makes them has not finished.")
            training = split == "train"
            self._windows[split] = EncodedWindows(
                wanted, CaptionTemplates(), self.seed, self.clips if training else None, first_only=not training
            )
            rank_zero_info(f"{split}: {len(self._windows[split])} windows in {self.cache}")

    def _splits(self) -> list[str]:
        return ["train"] if self.validation_shards is None else ["validation", "train"]

    def _pieces(self, split: str) -> tuple[SampleTable, list[Piece]]:
        names = self.train_shards if split == "train" else self.validation_shards
        table = SampleTable(expand_local_shards(f"{split}_shards", names or [], split))
        return table, pieces(table, self.cache, self.clips if split == "train" else None)

    # --- loaders ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> TrainLoader:
        """Training batches of this rank."""
        windows = self._windows["train"]
        identity = {"samples": len(windows), "seed": self.seed}
        return self.indexed_train_loader(windows, len(windows), Quarantine("train", 0.0), identity)

    def val_dataloader(self) -> EvaluationLoader | list[Any]:
        """Validation batches of this rank, the same in every epoch."""
        if (windows := self._windows.get("validation")) is None:
            return []
        quarantine = Quarantine("validation", 0.0)
        return self.indexed_evaluation_loader(windows, self.validation_clips, quarantine, "validation_clips")
