"""The edits still to make, in batches, shared by every process that works on one output folder.

A batch is fixed by the whole list of edits and not by what is left of it, and it is computed whole even when a part of
it is done: so each result has the same bytes whenever the run was stopped, and by however many processes it was made.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from apa_lightning.audio import AudioError
from apa_lightning.edit_jobs.parts import Part
from apa_lightning.edit_jobs.plan import Edit
from apa_lightning.edit_jobs.records import FAILED, UNREADABLE, FileMark, done_record, failed_record
from apa_lightning.edit_jobs.results import EditResults
from apa_lightning.editing.prompt_inputs import Recordings
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.editing.source import Recording
from apa_lightning.errors import InputError

KEY_FORMAT = 1  # to be raised when the same settings give another sound
log = logging.getLogger(__name__)


class EditBatch:
    """Requests on their way through the Trainer, which would otherwise rebuild each one field by field.

    They hold loaded recordings: each is read and checked once.
    """

    def __init__(self, requests: list[EditRequest]):
        self.requests = requests


class EditQueue:
    """An iterator over batches that also keeps the records of the run.

    Args:
        edits: All of them, done or not.
        results: The output folder.
        batch_size: Most edits that are denoised together.
        window_seconds: Window of the backbone; recordings up to this length are computed alike.
        identity: Returns a function that gives what decides a request's sound besides its own settings (adapter,
            backbone). It is called at the first batch, after checkpoints are loaded.
        announce: Gets the line about what there is to do.
        skip_unreadable: Whether a recording that cannot be read is left out, and not a failure of the run.
        part: The part of the edits that is made here; None: all. Batches are dealt whole, so that the results are the same.
    """

    def __init__(
        self,
        edits: Sequence[Edit],
        results: EditResults,
        batch_size: int,
        window_seconds: float,
        identity: Callable[[], Callable[[EditRequest], Mapping[str, Any]]],
        announce: Callable[[str], object] = log.info,
        skip_unreadable: bool = False,
        part: Part | None = None,
    ):
        self.results, self.identity, self.announce = results, identity, announce
        self.skip_unreadable, self.part = skip_unreadable, part
        self._all_edits = {edit.id: edit for edit in edits}
        self._all_batches = _batches(edits, batch_size, window_seconds)
        self.batches = part.every(self._all_batches) if part else self._all_batches
        self.edits = {edit.id: edit for batch in self.batches for edit in batch} if part else self._all_edits
        if part and part.number == 1:
            self.edits |= {edit.id: edit for edit in edits if edit.problem}
        self.has_writer = False  # set by PredictionWriter
        self.keys: dict[str, str] = {}
        self.skipped: set[str] = set()
        self._sources: dict[str, list[FileMark]] = {}
        self._recordings = Recordings()

    def __len__(self) -> int:
        """An upper bound: there are fewer batches when some are done, or made by another process.

        With a length Lightning fetches nothing ahead; one too many lets it ask again and so finish the last batch.
        """
        return len(self.batches) + 1

    def __iter__(self) -> Iterator[EditBatch]:
        if not self.has_writer:
            raise InputError("trainer.callbacks: predict needs callbacks.PredictionWriter: it writes the results.")
        identity = self.identity()
        self.keys = {edit.id: _key(edit.request, identity(edit.request)) for edit in self._all_edits.values()}
        self.skipped = {edit_id for edit_id in self.edits if self._is_done(edit_id)}
        of_all = f"part {self.part} of {len(self._all_edits)} edits: " if self.part else ""
        self.announce(f"{of_all}{len(self.edits)} edits, {len(self.skipped)} already done, into {self.results.folder}")
        for edit in self.edits.values():
            if edit.problem:
                self.record_failed(edit.id, edit.problem, UNREADABLE)
        taken_by_others = []
        for batch in self.batches:
            if not self._is_open(batch):
                continue
            with self.results.claim(self._name(batch), wait=False) as held:
                if held:
                    yield from self._make(batch)
                else:
                    taken_by_others.append(batch)
        # Last, because by now most of these are made; if their process died, they are made here.
        for batch in taken_by_others:
            with self.results.claim(self._name(batch), wait=True):
                yield from self._make(batch)

    def _make(self, batch: list[Edit]) -> Iterator[EditBatch]:
        if not self._is_open(batch):
            return
        self._sources.clear()
        self._recordings = Recordings()
        with self.results.making(self._name(batch), [edit.output for edit in batch]):
            requests = [request for edit in batch if (request := self._load(edit)) is not None]
            if any(not self.is_settled(request.name) for request in requests):
                yield EditBatch(requests)

    def _load(self, edit: Edit) -> EditRequest | None:
        """The request with its loaded recordings. Problems that the plan did not find fail only this edit, not the run."""
        try:
            self._sources[edit.id] = [FileMark.of(source) for source in edit.sources]
            recording = Recording.load(self._recordings.load(edit.audio), edit.request)
            prompts = edit.request.audio_prompts and [
                one | {"audio": self._recordings.load_prompt(number, one["audio"])} if one.get("audio") else one
                for number, one in enumerate(edit.request.audio_prompts)
            ]
        except (InputError, OSError) as error:
            self.record_failed(edit.id, str(error), UNREADABLE if self.skip_unreadable else FAILED)
            return None
        if edit.request.keeps and recording.peak > 1 and not edit.output.lower().endswith(".wav"):
            self.record_failed(
                edit.id, f"output: {edit.output} cannot hold samples above 1, which {edit.audio} has. Name it .wav."
            )
            return None
        return replace(edit.request, audio=recording, audio_prompts=prompts)

    # --- the state of an edit -----------------------------------------------------------------------------------------

    def is_settled(self, edit_id: str) -> bool:
        """Whether an edit is done, by any process at any time, or has failed during this run."""
        return self._is_done(edit_id) or bool(self.results.failed_since_opening(edit_id, self.keys[edit_id]))

    def record_done(self, edit_id: str, details: Mapping[str, Any]) -> None:
        """Append the line of an edit whose file is written; ``details`` are :meth:`EditResult.record`'s."""
        edit = self.edits[edit_id]
        mark = FileMark.of(self.results.folder / edit.output)
        self.results.append(
            done_record(edit_id, self.keys[edit_id], edit.output, self._sources[edit_id], mark, details)
        )

    def record_failed(self, edit_id: str, message: str, status: str = FAILED) -> None:
        """Append the line of an edit that could not be made, unless another process has appended it."""
        edit = self.edits[edit_id]
        if not self.is_settled(edit_id):
            self.results.append(
                failed_record(edit_id, status, self.keys[edit_id], edit.output, message, edit.request.settings())
            )

    def write(self, result: EditResult) -> None:
        """Write a result's file, then its line, unless it is there already: a batch is computed whole to keep its bytes."""
        edit_id = result.request.name
        if self.is_settled(edit_id):
            return
        try:
            result.save(self.results.folder / self.edits[edit_id].output)
        except AudioError as error:
            self.record_failed(edit_id, str(error))
        else:
            self.record_done(edit_id, result.record())

    def settled(self) -> int:
        """Number of edits that are done or have failed, by any process."""
        return len(self.skipped) + len(self.made()) + len(self.failures()) + len(self.failures(UNREADABLE))

    def raise_failures(self, command: str, failures: Mapping[str, str]) -> None:
        """Raise one :class:`InputError` that names the failed edits, if there are any."""
        if failures:
            shown = "".join(f"\n  {edit_id}: {message}" for edit_id, message in failures.items())
            raise InputError(
                f"{command}: {len(failures)} of {len(self.edits)} edits failed; the others are finished. "
                f"Correct the problems below and start the same command again: it makes only these edits.{shown}"
            )

    def failures(self, status: str = FAILED) -> dict[str, str]:
        """Message by id of the edits that failed during this run, or whose recording could not be read."""
        found = [i for i in self.edits if self.results.failed_since_opening(i, self.keys[i]) == status]
        return {i: self.results.message(i) for i in found}

    def made(self) -> list[str]:
        """Ids of the edits that were made since this run started, by all its processes."""
        found = ((i, self.results.entries.get(i)) for i in self.edits if i not in self.skipped)
        return [i for i, entry in found if entry is not None and (entry.status, entry.key) == ("done", self.keys[i])]

    def missing_parts(self) -> list[Part]:
        """The other parts of which edits are neither done nor have failed during this run."""
        others = self.part.others() if self.part else []
        return [other for other in others if any(map(self._is_open, other.every(self._all_batches)))]

    def _is_open(self, batch: list[Edit]) -> bool:
        return not all(self.is_settled(edit.id) for edit in batch)

    def _is_done(self, edit_id: str) -> bool:
        edit = self._all_edits[edit_id]
        return self.results.is_done(edit_id, self.keys[edit_id], edit.output, edit.sources)

    def _name(self, batch: list[Edit]) -> str:
        return _digest([(edit.id, self.keys[edit.id]) for edit in batch])


def _batches(edits: Sequence[Edit], batch_size: int, window_seconds: float) -> list[list[Edit]]:
    """Edits that the editor can denoise together, in the order of their first."""
    groups: dict[tuple, list[Edit]] = {}
    for edit in edits:
        if edit.info is not None:
            seconds = edit.info.seconds + sum(edit.request.extend or ())
            length = round(max(seconds, window_seconds), 2)
            groups.setdefault((length, *edit.request.batch_key), []).append(edit)
    return [group[i : i + batch_size] for group in groups.values() for i in range(0, len(group), batch_size)]


def _key(request: EditRequest, identity: Mapping[str, Any]) -> str:
    left_out = ("id", "audio", "task", *request.late_defaults)  # the knobs have the task's values
    settings = {name: value for name, value in request.settings().items() if name not in left_out}
    if request.audio_prompts is not None:  # of their files, as of the recording, the content counts and not the path
        prompts = settings["audio_prompts"]
        settings["audio_prompts"] = [{**one, "audio": one["audio"] is not None} for one in prompts]
    return _digest({"format": KEY_FORMAT, **settings, **identity})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
