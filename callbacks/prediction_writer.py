"""Files of `predict`: one audio file and one line of `results.jsonl` per edit, a summary, a table for spreadsheets."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from tqdm import tqdm

from apa_lightning.audio import AudioError
from apa_lightning.edit_jobs.queue import EditQueue
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.errors import InputError
from datamodules.edits import EditsDataModule

TERMINATED = 128 + 15


class PredictionWriter(Callback):
    """Writes each edit as soon as it is made: the audio file first, its line after, so a stop at any moment loses
    nothing but the batch in work. Nothing is kept in memory. Outside of `predict` it does nothing.

    An edit that cannot be made (a recording that breaks in the middle, a result with NaN) is recorded as failed and the
    run goes on; at the very end :class:`InputError` names the failures, so that the command exits with 2.

    Args:
        progress: Show a progress bar over all edits, of all processes, in place of Lightning's over batches.
    """

    def __init__(self, progress: bool = True):
        self.progress = progress
        self._bar: tqdm | None = None
        self._replaced: Any = None  # Lightning's bar, while ours is shown
        self._started = 0.0
        self._failures: dict[str, str] = {}
        self._summarised = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        if not isinstance(trainer.datamodule, EditsDataModule):
            raise InputError(
                "data: predict edits what datamodules.EditsDataModule reads; give it as --data.class_path."
            )
        _queue(trainer).has_writer = True
        trainer.predict_loop.return_predictions = False  # Lightning would keep every waveform
        self._failures, self._summarised = {}, False
        bar: Any = trainer.progress_bar_callback
        if self.progress and trainer.is_global_zero and bar is not None and bar.is_enabled:
            bar.disable()
            self._replaced = bar

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: list[EditRequest], *_: Any
    ) -> None:
        if self._bar is None and trainer.is_global_zero:
            done, total = len(_queue(trainer).skipped), len(_queue(trainer).edits)
            hidden = self._replaced is None
            self._bar = tqdm(total=total, initial=done, desc="edits", unit="edit", dynamic_ncols=True, disable=hidden)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: list[EditResult], batch: list[EditRequest], *_: Any
    ) -> None:
        queue = _queue(trainer)
        for result in outputs:
            if queue.is_settled(result.request.name):  # computed along with others of its batch that were missing
                continue
            try:
                result.save(trainer.datamodule.path_of(result))
            except AudioError as error:
                queue.record_failed(result.request.name, str(error))
            else:
                queue.record_done(result.request.name, result.record())
        if self._bar is not None:
            self._bar.update(len(queue.skipped) + len(queue.made()) + len(queue.failures()) - self._bar.n)
        if trainer.received_sigterm:  # Lightning looks at it in fit alone
            raise SIGTERMException(TERMINATED)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close_bar()
        if trainer.is_global_zero:
            queue = _queue(trainer)
            queue.results.refresh()
            queue.results.tidy()
            self._failures = queue.failures()
            table = queue.results.write_table()
            self._summarised = True
            print(summary(queue, time.monotonic() - self._started, f"{queue.results.path}, {table.name}"), flush=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close_bar()
        queue = trainer.datamodule.queue if isinstance(trainer.datamodule, EditsDataModule) else None
        if queue is not None and queue.keys and trainer.is_global_zero and not self._summarised:
            done = len(queue.skipped) + len(queue.made())
            print(
                f"predict: stopped; {done} of {len(queue.edits)} edits are whole in {queue.results.folder}. "
                "The same command makes the rest.",
                flush=True,
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The very end: all is written and told."""
        if self._failures:
            failures, self._failures = self._failures, {}
            shown = "".join(f"\n  {edit_id}: {message}" for edit_id, message in failures.items())
            raise InputError(
                f"predict: {len(failures)} of {len(_queue(trainer).edits)} edits failed; the others are whole. "
                f"Mend what is said below and start the same command again: it makes only these.{shown}"
            )

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._replaced is not None:
            self._replaced.enable()
            self._replaced = None


def summary(queue: EditQueue, seconds: float, files: str) -> str:
    """A small table: what was made, skipped, failed or left, how long it took, and where it is."""
    made, skipped, failed = len(queue.made()), len(queue.skipped), len(queue.failures())
    left = len(queue.edits) - made - skipped - failed
    rows = [
        ("made", made, f"({seconds / made:.1f} s per edit)" if made else ""),
        ("skipped", skipped, "(done before)" if skipped else ""),
        ("failed", failed, ""),
        *([("left", left, "(start the same command again)")] if left else []),
        ("audio", queue.results.folder, ""),
        ("results", files, ""),
    ]
    return "\n".join(["predict: summary", *(f"  {name:<8} {value}  {note}".rstrip() for name, value, note in rows)])


def _queue(trainer: Trainer) -> EditQueue:
    queue = trainer.datamodule.queue
    assert queue is not None
    return queue
