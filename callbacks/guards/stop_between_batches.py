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

AGAIN = signal.SIGINT
"""Ctrl+C a second time does not wait for the step."""


class StopBetweenBatches(L.Callback):
    """SIGTERM, Ctrl+C and SLURM's requeue signal let the step finish, write ``last.ckpt`` and end the run. (In the last
    batch of an epoch, the next step too.)

    Lightning would save for SLURM wherever the signal finds the program, in the middle of an optimizer step too; raise
    KeyboardInterrupt there; and answer SIGTERM under DDP with a broadcast that the other processes may not be ready for.
    Here a handler only takes a note, and at the end of a step all processes agree to stop if one of them was asked to.
    A validation is left where it stands and begins anew when the run is continued; after the last step of all there is
    nothing to continue, and the run ends as it would have. Without checkpointing nothing is saved.

    Under SLURM's requeue signal Lightning's own handler then saves ``hpc_ckpt_*.ckpt`` and requeues the job. The job that
    continues makes it the run's ``last.ckpt``: left where it is, it would be what every later job in that folder begins with.
    """

    def __init__(self) -> None:
        self._asked: int | None = None
        self._requeue: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._left_validation = False
        self._process = os.getpid()

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._process = os.getpid()
        # Lightning puts back every handler of before when the run ends.
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            handler = signal.getsignal(number)
            if type(handler).__module__ == type(trainer._signal_connector).__module__:
                if number != signal.SIGTERM:
                    self._requeue[number] = handler  # type: ignore[assignment]
                signal.signal(number, self._note)
        signal.signal(signal.SIGINT, self._note)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.on_sanity_check_start(trainer, pl_module)
        # Lightning has seen by now that a validation was left; the batch that it was left in does not count.
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()
        path, last = Path(trainer.ckpt_path or ""), self._last(trainer)
        if path.name.startswith("hpc_ckpt_") and last is not None and trainer.is_global_zero:
            last.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, last)  # by now every process has read it

    @staticmethod
    def _last(trainer: L.Trainer) -> Path | None:
        folder = getattr(trainer.checkpoint_callback, "dirpath", None)
        if folder is None or trainer.fast_dev_run:
            return None
        return Path(folder) / f"{ModelCheckpoint.CHECKPOINT_NAME_LAST}{ModelCheckpoint.FILE_EXTENSION}"

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a data worker of ours: Ctrl+C reaches it too
        if number == AGAIN and self._asked == AGAIN:
            raise KeyboardInterrupt
        self._asked = number
        again = " Press Ctrl+C again to stop at once, without saving." if number == AGAIN else ""
        rank_zero_info(f"{signal.Signals(number).name}: training stops after this step and saves its state.{again}")

    # Lightning's loops look at the flag that is set here when a batch is behind them and their counters are whole.

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        # A run that is left behind the last batch of an epoch counts that epoch twice when it is continued; and gradients
        # that wait for others are in no checkpoint.
        if not trainer.is_last_batch and not trainer.fit_loop._should_accumulate():
            self._agree(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.num_training_batches == 1:
            self._agree(trainer)

    def _agree(self, trainer: L.Trainer) -> None:
        if not _finished(trainer) and trainer.strategy.reduce_boolean_decision(self._asked is not None, all=False):
            trainer._signal_connector.received_sigterm = True

    def on_validation_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        # Ranks may have different numbers of validation batches, so several wait for the next training batch.
        left = trainer.world_size > 1 or trainer.fit_loop._should_accumulate() or _finished(trainer)
        if self._asked is not None and not left:
            trainer._signal_connector.received_sigterm = True

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer._signal_connector.received_sigterm = False  # too late for this batch: Lightning would count it twice

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, SIGTERMException) or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if self._asked is not None:
            exception.code = 128 + self._asked
        self._left_validation = trainer.validating
        if trainer.strategy.reduce_boolean_decision(self._asked in self._requeue, all=False):
            for number, handler in self._requeue.items():
                handler(number, None)
        elif path := self._last(trainer):
            trainer.save_checkpoint(path, weights_only=False)
            rank_zero_info(f"Stopped at step {trainer.global_step}. Continue with --ckpt_path last: {path}")

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put a validation that was left back to its beginning: its figures so far are in no checkpoint."""
        if self._left_validation:
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            before = progress["total"]["completed"] - progress["current"]["completed"]
            for name, done in (("total", before), ("current", 0)):
                progress[name] |= {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}
            progress["is_last_batch"] = False


def _finished(trainer: L.Trainer) -> bool:
    return 0 <= trainer.max_steps <= trainer.global_step
