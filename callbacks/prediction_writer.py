"""Files of ``predict``: one audio file and one line of ``results.jsonl`` per edit, a summary, a table for spreadsheets."""

import time
import warnings
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities.exceptions import SIGTERMException
from tqdm import tqdm

from apa_lightning.edit_jobs.parts import missing_parts
from apa_lightning.edit_jobs.queue import EditQueue
from apa_lightning.edit_jobs.records import UNREADABLE
from apa_lightning.editing.request import EditRequest
from apa_lightning.errors import InputError
from apa_lightning.utils.progress import progress
from datamodules.edits import EditsDataModule

TERMINATED = 128 + 15


class PredictionWriter(BasePredictionWriter):
    """Writes each edit as soon as it is made; outside of `predict` it does nothing.

    The audio file is written first and its line after it, so a stop at any moment loses only the batch that is being made.
    Nothing is kept in memory. An edit that cannot be made (a recording that breaks in the middle, a result with NaN) is
    recorded as failed and the run continues; at the end :class:`InputError` names the failures, so that the command exits
    with 2. Recordings that `skip_unreadable` leaves out are named in the summary, and the command exits with 0.

    Args:
        progress: Report progress over all edits, of all processes, in place of Lightning's bar over batches.
    """

    def __init__(self, progress: bool = True):
        super().__init__(write_interval="batch")
        self.progress = progress
        self._bar: tqdm | None = None
        self._replaced: Any = None  # Lightning's bar, while ours is shown
        self._started = 0.0
        self._failures: dict[str, str] = {}
        self._summarized = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "predict":
            return
        if not isinstance(_data(trainer), EditsDataModule):
            raise InputError(
                "data: predict edits what datamodules.EditsDataModule reads; give it as --data.class_path."
            )
        # Lightning looks for indices of a batch in a dataset; a queue has none.
        warnings.filterwarnings("ignore", "Couldn't infer the batch indices")
        _queue(trainer).has_writer = True
        trainer.predict_loop.return_predictions = False  # Lightning would keep every waveform
        self._failures, self._summarized = {}, False
        bar: Any = trainer.progress_bar_callback
        if self.progress and trainer.is_global_zero and bar is not None and bar.is_enabled:
            bar.disable()
            self._replaced = bar

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: list[EditRequest], *_: Any
    ) -> None:
        if self._bar is None and self._replaced is not None:
            queue = _queue(trainer)
            self._bar = progress(len(queue.edits), "edits", "edit", initial=len(queue.skipped))

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: list[EditRequest],
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the results of a batch that are not there yet."""
        queue = _queue(trainer)
        for result in prediction:
            queue.write(result)
        if self._bar is not None:
            self._bar.update(queue.settled() - self._bar.n)
        if trainer.received_sigterm:  # Lightning checks it in fit only
            raise SIGTERMException(TERMINATED)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close_bar()
        if trainer.is_global_zero:
            queue = _queue(trainer)
            queue.results.refresh()
            queue.results.tidy()
            self._failures = queue.failures()
            table = queue.results.write_table()
            self._summarized = True
            files = f"{queue.results.path}, {table.name}"
            print(summary(queue, time.monotonic() - self._started, files, _data(trainer).left_out), flush=True)
            if missing := queue.missing_parts():
                print(f"predict: {missing_parts(missing)}", flush=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close_bar()
        data = _data(trainer)
        queue = data.queue if isinstance(data, EditsDataModule) else None
        if queue is not None and queue.keys and trainer.is_global_zero and not self._summarized:
            done = len(queue.skipped) + len(queue.made())
            print(
                f"predict: stopped; {done} of {len(queue.edits)} edits are finished in {queue.results.folder}. "
                "The same command makes the rest.",
                flush=True,
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Name the failed edits, after everything else is done."""
        if self._failures:
            failures, self._failures = self._failures, {}
            _queue(trainer).raise_failures("predict", failures)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        if self._replaced is not None:
            self._replaced.enable()
            self._replaced = None


def summary(queue: EditQueue, seconds: float, files: str, left_out: str = "") -> str:
    """A small table of how many edits were made, skipped, failed or left, of the time it took, and of the files."""
    made, skipped, failed = len(queue.made()), len(queue.skipped), len(queue.failures())
    entries = (queue.results.entries.get(edit_id) for edit_id in queue.edits)
    cut = sum(entry is not None and entry.is_cut for entry in entries)
    unreadable = queue.failures(UNREADABLE)
    left = len(queue.edits) - made - skipped - failed - len(unreadable)
    rows = [
        ("made", made, f"({seconds / made:.1f} s per edit)" if made else ""),
        ("skipped", skipped, "(done before)" if skipped else ""),
        ("failed", failed, ""),
        *([("cut", cut, "(prompts longer than a text encoder reads; lost_text in the results)")] if cut else []),
        *([("unread", len(unreadable), "(recordings that cannot be read)")] if unreadable else []),
        *([("left", left, "(start the same command again)")] if left else []),
        ("audio", queue.results.folder, ""),
        ("results", files, ""),
        *([("not read", left_out, "")] if left_out else []),
    ]
    named = [f"  {edit_id}: {message}" for edit_id, message in unreadable.items()]
    table = [f"  {name:<8} {value}  {note}".rstrip() for name, value, note in rows]
    return "\n".join(["predict: summary", *table, *(["predict: unread", *named] if named else [])])


def _data(trainer: Trainer) -> Any:
    return trainer.datamodule  # type: ignore[attr-defined]


def _queue(trainer: Trainer) -> EditQueue:
    return _data(trainer).queue
