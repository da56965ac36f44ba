"""The edits still to make, in batches, shared by every process that works on one output folder.

A batch is fixed by the whole list of edits and not by what is left of it, and it is computed whole even when a part of
it is done: so each result has the same bytes whenever the run was stopped, and by however many processes it was made.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from apa_lightning.audio import load_audio, to_mono
from apa_lightning.edit_jobs.plan import Edit
from apa_lightning.edit_jobs.records import FileMark, done_record, failed_record
from apa_lightning.edit_jobs.results import EditResults
from apa_lightning.editing.request import MAX_SECONDS, EditRequest, check_length, check_not_silent
from apa_lightning.errors import InputError

KEY_FORMAT = 1  # raise it when the same settings begin to give another sound


class EditBatch:
    """Requests on their way through the Trainer, which would otherwise rebuild each one field by field.

    They hold decoded recordings, so that each is read once, and what is wrong with it is known before the edit.
    """

    def __init__(self, requests: list[EditRequest]):
        self.requests = requests


class EditQueue:
    """Iterates over batches; also the record keeper of the run.

    Args:
        edits: all of them, done or not.
        results: the output folder.
        batch_size: edits that are denoised together at most.
        window_seconds: of the backbone; recordings up to this length are computed alike.
        identity: gives a function that tells what besides a request's own settings decides its sound (adapter, backbone);
            asked when the first batch is, after checkpoints are loaded.
    """

    def __init__(
        self,
        edits: Sequence[Edit],
        results: EditResults,
        batch_size: int,
        window_seconds: float,
        identity: Callable[[], Callable[[EditRequest], Mapping[str, Any]]],
    ):
        self.edits = {edit.id: edit for edit in edits}
        self.results, self.identity = results, identity
        self.batches = _batches(edits, batch_size, window_seconds)
        self.has_writer = False  # a PredictionWriter says so
        self.keys: dict[str, str] = {}
        self.skipped: set[str] = set()
        self._sources: dict[str, FileMark] = {}

    def __len__(self) -> int:
        """An upper bound: fewer come when some are done, or made by another process.

        With a length Lightning fetches nothing ahead; one too many lets it ask again and so put the last batch away.
        """
        return len(self.batches) + 1

    def __iter__(self) -> Iterator[EditBatch]:
        if not self.has_writer:
            raise InputError("trainer.callbacks: predict needs callbacks.PredictionWriter: it writes the results.")
        identity = self.identity()
        self.keys = {edit.id: _key(edit.request, identity(edit.request)) for edit in self.edits.values()}
        self.skipped = {edit_id for edit_id in self.edits if self._is_done(edit_id)}
        rank_zero_info(
            f"predict: {len(self.edits)} edits, {len(self.skipped)} already done, into {self.results.folder}"
        )
        taken_by_others = []
        for batch in self.batches:
            if not self._open(batch):
                continue
            with self.results.claim(self._name(batch), wait=False) as held:
                if held:
                    yield from self._make(batch)
                else:
                    taken_by_others.append(batch)
        for batch in taken_by_others:  # only now: by this time most are made; if their process died they are made here
            with self.results.claim(self._name(batch), wait=True):
                yield from self._make(batch)

    def _make(self, batch: list[Edit]) -> Iterator[EditBatch]:
        if not self._open(batch):
            return
        self._sources.clear()
        with self.results.making(self._name(batch), [edit.output for edit in batch]):
            requests = [request for edit in batch if (request := self._read(edit)) is not None]
            if any(not self.is_settled(request.name) for request in requests):
                yield EditBatch(requests)

    def _read(self, edit: Edit) -> EditRequest | None:
        """The request with its decoded recording; what the plan's look at it did not tell fails this edit, not the run."""
        name = str(edit.audio)
        try:
            self._sources[edit.id] = FileMark.of(edit.audio)
            waveform, rate = load_audio(edit.audio, max_seconds=MAX_SECONDS)
            check_length(waveform.shape[-1] / rate, edit.request.region, name)
            check_not_silent(to_mono(waveform), name)
        except (InputError, OSError) as error:
            self.record_failed(edit.id, str(error))
            return None
        return replace(edit.request, audio=(waveform, rate))

    # --- what has become of an edit -----------------------------------------------------------------------------------

    def is_settled(self, edit_id: str) -> bool:
        """Done, by whichever process and whenever; or failed during this run."""
        return self._is_done(edit_id) or self.results.failed_since_opening(edit_id, self.keys[edit_id])

    def record_done(self, edit_id: str, details: Mapping[str, Any]) -> None:
        """Append the line of an edit whose file is written; `details` are :meth:`EditResult.record`'s."""
        edit = self.edits[edit_id]
        mark = FileMark.of(self.results.folder / edit.output)
        details = {**details, "audio": str(edit.audio)}  # the editor was given samples
        self.results.append(
            done_record(edit_id, self.keys[edit_id], edit.output, self._sources[edit_id], mark, details)
        )

    def record_failed(self, edit_id: str, message: str) -> None:
        """Append the line of an edit that could not be made, unless it is there from another process."""
        edit = self.edits[edit_id]
        if not self.is_settled(edit_id):
            self.results.append(
                failed_record(edit_id, self.keys[edit_id], edit.output, message, edit.request.settings())
            )

    def failures(self) -> dict[str, str]:
        """Message by id of what failed during this run."""
        return {i: self.results.message(i) for i, key in self.keys.items() if self.results.failed_since_opening(i, key)}

    def made(self) -> list[str]:
        """Ids of what was made since this run began, by all its processes."""
        found = ((i, self.results.entries.get(i)) for i in self.keys if i not in self.skipped)
        return [i for i, entry in found if entry is not None and (entry.status, entry.key) == ("done", self.keys[i])]

    def _open(self, batch: list[Edit]) -> bool:
        return not all(self.is_settled(edit.id) for edit in batch)

    def _is_done(self, edit_id: str) -> bool:
        edit = self.edits[edit_id]
        return self.results.is_done(edit_id, self.keys[edit_id], edit.output, edit.audio)

    def _name(self, batch: list[Edit]) -> str:
        return _digest([(edit.id, self.keys[edit.id]) for edit in batch])


def _batches(edits: Sequence[Edit], batch_size: int, window_seconds: float) -> list[list[Edit]]:
    """Edits that the editor can denoise together, in the order of their first."""
    groups: dict[tuple, list[Edit]] = {}
    for edit in edits:
        length = round(max(edit.info.seconds, window_seconds), 2)
        groups.setdefault((length, *edit.request.batch_key), []).append(edit)
    return [group[i : i + batch_size] for group in groups.values() for i in range(0, len(group), batch_size)]


def _key(request: EditRequest, identity: Mapping[str, Any]) -> str:
    settings = {name: value for name, value in request.settings().items() if name not in ("id", "audio")}
    return _digest({"format": KEY_FORMAT, **settings, **identity})


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
