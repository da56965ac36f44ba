"""Validation before the first step, so that curves start at the untrained adapter."""

import lightning as L
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping

from apa_lightning.utils.lightning_compat import callbacks_of, training_batch, use_callbacks, validate_now


class InitialValidation(L.Callback):
    """Runs the whole validation when a training starts, logged at step 0. A resumed training does not repeat it.

    Training itself is the same as without this callback: neither checkpoints nor early stopping take the untrained
    adapter into account. If the run is stopped within this validation, it starts again with it.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.enable_validation or training_batch(trainer) >= 0:
            return
        judges = (Checkpoint, EarlyStopping)
        with use_callbacks(trainer, [one for one in callbacks_of(trainer) if not isinstance(one, judges)]):
            validate_now(trainer)
