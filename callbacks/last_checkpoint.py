"""The checkpoint to resume from."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from apa_lightning.utils.lightning_compat import is_accumulating, save_checkpoint_now


class LastCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt``, the state to resume from, after every validation and when training ends.

    ``ModelCheckpoint(monitor=..., save_last=True)`` writes it only when the monitored score has improved, so a kill in a
    long plateau would lose all of it. Where a validation falls between batches whose gradients are accumulated, the file
    is written after the step that they lead to, because gradients are in no checkpoint.

    Args:
        every_n_train_steps: Steps from one file to the next; ``null`` writes it after every validation instead.
        dirpath: Folder of the file; ``null`` means ``checkpoints`` in the run's folder.
    """

    def __init__(self, every_n_train_steps: int | None = None, dirpath: str | None = None):
        super().__init__(
            dirpath,
            filename=self.CHECKPOINT_NAME_LAST,
            save_top_k=1,
            every_n_train_steps=every_n_train_steps,
            enable_version_counter=False,  # one file, replaced
        )
        self._waits = False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._waits = not trainer.sanity_checking and is_accumulating(trainer)
        if not self._waits:
            super().on_validation_end(trainer, pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
        super().on_train_batch_end(trainer, *arguments)
        if self._waits and not is_accumulating(trainer):
            self._waits = False
            save_checkpoint_now(self, trainer)

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        save_checkpoint_now(self, trainer)
