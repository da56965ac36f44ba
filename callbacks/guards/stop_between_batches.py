"""Signals that end training do so between two batches, with a checkpoint of that moment."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from apa_lightning.utils.lightning_compat import (
    ask_to_stop,
    forget_unfinished_validation_batch,
    is_accumulating,
    is_fast_dev_run,
    is_signal_handler_of,
    rewind_validation,
)

#: Ctrl+C a second time stops at once.
AT_ONCE = signal.SIGINT


class StopBetweenBatches(L.Callback):
    """Lets the step finish on SIGTERM, Ctrl+C and SLURM's requeue signal, then writes ``last.ckpt`` and ends the run.

    In the last batch of an epoch, the next step is finished too. Without this callback Lightning saves for SLURM wherever
    the signal finds the program, also in the middle of an optimizer step, raises KeyboardInterrupt there, and answers
    SIGTERM under DDP with a broadcast that the other processes may not be ready for. Here a handler only takes a note, and
    at the end of a step all processes agree to stop if one of them was asked to.

    A validation is left unfinished and starts again when the run is resumed. After the last step of all there is nothing to
    resume, and the run ends as it would have. Without checkpointing nothing is saved.

    On SLURM's requeue signal, Lightning's own handler then saves ``hpc_ckpt_*.ckpt`` and requeues the job. The job that
    resumes renames it to the run's ``last.ckpt``: otherwise every later job in that folder would start from it.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._requeue: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._left_validation = False
        self._process = os.getpid()

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._process = os.getpid()
        # Lightning restores every earlier handler when the run ends.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            handler = signal.getsignal(number)
            if is_signal_handler_of(trainer, handler):
                if number != signal.SIGTERM:
                    self._requeue[number] = handler  # type: ignore[assignment]
                signal.signal(number, self._note)
        signal.signal(signal.SIGINT, self._note)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_sanity_check_start(trainer, pl_module)
        # Lightning knows by now that a validation was left.
        forget_unfinished_validation_batch(trainer)
        path, last = Path(trainer.ckpt_path or ""), _last_checkpoint(trainer)
        if path.name.startswith("hpc_ckpt_") and last is not None and trainer.is_global_zero:
            last.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, last)  # by now every process has read it

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a data worker of ours: Ctrl+C reaches it too
        if number == AT_ONCE and self._asked == AT_ONCE:
            raise KeyboardInterrupt
        self._asked = number
        again = " Press Ctrl+C again to stop at once, without saving." if number == AT_ONCE else ""
        rank_zero_info(f"{signal.Signals(number).name}: training stops after this step and saves its state.{again}")

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        # A run that is stopped after the last batch of an epoch would count that epoch twice when it is resumed, and
        # gradients that are still accumulated are in no checkpoint.
        if not trainer.is_last_batch and not is_accumulating(trainer):
            self._agree(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.num_training_batches == 1:
            self._agree(trainer)

    def _agree(self, trainer: L.Trainer) -> None:
        if not _is_finished(trainer) and trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False):
            ask_to_stop(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        # Processes may have different numbers of validation batches, so several wait for the next training batch.
        waits = trainer.world_size > 1 or is_accumulating(trainer) or _is_finished(trainer)
        if self._asked is not None and not waits:
            ask_to_stop(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        ask_to_stop(trainer, False)  # too late for this batch: Lightning would count it twice

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, SIGTERMException) or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self._asked is not None:
            exception.code = 128 + self._asked
        self._left_validation = trainer.validating
        if trainer.strategy.reduce_boolean_decision(self._asked in self._requeue, all=False):
            for number, handler in self._requeue.items():
                handler(number, None)
        elif path := _last_checkpoint(trainer):
            trainer.save_checkpoint(path, weights_only=False)
            rank_zero_info(f"Stopped at step {trainer.global_step}. Resume with --ckpt_path last: {path}")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let a validation that was left start again when the run is resumed."""
        if self._left_validation:
            rewind_validation(checkpoint)


def _last_checkpoint(trainer: L.Trainer) -> Path | None:
    folder = getattr(trainer.checkpoint_callback, "dirpath", None)
    if folder is None or is_fast_dev_run(trainer):
        return None
    return Path(folder) / f"{ModelCheckpoint.CHECKPOINT_NAME_LAST}{ModelCheckpoint.FILE_EXTENSION}"


def _is_finished(trainer: L.Trainer) -> bool:
    return 0 <= trainer.max_steps <= trainer.global_step
