"""The checkpoint to resume from."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint


class LastCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt``, the state to resume from, after every validation and when training ends.

    ``ModelCheckpoint(monitor=..., save_last=True)`` writes it only when the monitored figure has become better: a kill in
    a long plateau would lose all of it.

    Args:
        every_n_train_steps: write it so often instead of after every validation.
        dirpath: folder; ``null`` means ``checkpoints`` in the run's folder.
    """

    def __init__(self, every_n_train_steps: int | None = None, dirpath: str | None = None):
        super().__init__(
            dirpath,
            filename=self.CHECKPOINT_NAME_LAST,
            save_top_k=1,
            every_n_train_steps=every_n_train_steps,
            enable_version_counter=False,  # one file, replaced
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))
