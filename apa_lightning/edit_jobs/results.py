"""The output folder of bulk editing: which edits are done or in progress; a crash at any moment loses no finished edit.

``results.jsonl`` holds one line per finished edit, appended after its audio file is whole; the newest line of an id counts.
Every process that edits into the folder, of one run or of several, first *claims* a batch: it takes a lock that the system
releases when the process dies, and writes a note that names the files being made. So an audio file without a line is
recognized as ours, and nothing is made twice.
"""

import contextlib
import csv
import errno
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from apa_lightning.audio import AudioError, probe_audio
from apa_lightning.edit_jobs.manifest import Problems
from apa_lightning.edit_jobs.plan import Edit
from apa_lightning.edit_jobs.records import (
    Entry,
    flat,
    mend_last_line,
    named_output,
    read_entry,
    read_mark,
    read_sources,
)
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import atomic_path, file_lock, remove_leftovers, write_file

log = logging.getLogger(__name__)

RESULTS, CLAIMS = "results.jsonl", ".claims"
FREE_IT = "Move it, choose another `output` folder, or let it be replaced: `overwrite` true."


class EditResults:
    """The results in an output folder.

    Args:
        folder: The folder; it is created if it does not exist.
        table_name: File name of the table of all results.
        warn: Gets a message about each line that cannot be read.

    Raises:
        InputError: If the folder cannot be created or written.
    """

    def __init__(
        self,
        folder: Path,
        table_name: str = "results.csv",
        warn: Callable[[str], object] = log.warning,
    ):
        self.folder, self.path, self.table_name, self.warn = folder, folder / RESULTS, table_name, warn
        self.entries: dict[str, Entry] = {}
        self.made: dict[str, Entry] = {}  # by output
        self._torn: set[str] = set()  # outputs named in lines that a crash has cut off
        self._read_to = 0
        self._results_lock = folder / CLAIMS / "results.lock"
        try:
            (folder / CLAIMS).mkdir(parents=True, exist_ok=True)
            with self._appending():
                pass
        except OSError as error:
            raise InputError(f"output: cannot write to {folder} ({error.strerror}). Choose another folder.") from None
        self.refresh()
        self.opened_at = self._read_to

    # --- results.jsonl ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _appending(self) -> Iterator[int]:
        """Hold the lock on ``results.jsonl`` and yield its descriptor; a last line torn by a crash is repaired first."""
        with FileLock(self._results_lock).acquire(poll_interval=0.02):
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                self._torn |= named_output(mend_last_line(descriptor))
                yield descriptor
            finally:
                os.close(descriptor)

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one line and sync it to the disk; on a full disk nothing of it is kept."""
        line = json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        with self._appending() as descriptor:
            end = os.fstat(descriptor).st_size
            try:
                written = os.write(descriptor, line)
                if written < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, end)
                raise
        self.refresh()

    def refresh(self) -> None:
        """Read the lines that any process has appended since the last time."""
        with open(self.path, "rb") as file:
            file.seek(self._read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # another process is writing it
                try:
                    entry = read_entry(json.loads(line), self._read_to)
                except (ValueError, KeyError, TypeError):
                    self._torn |= named_output(line)
                    self.warn(f"{self.path}: the line at byte {self._read_to} is not readable; its edit is made again.")
                else:
                    self.entries[entry.id] = entry
                    if entry.status == "done":
                        self.made[entry.output] = entry
                self._read_to += len(line)

    def is_done(self, edit_id: str, key: str, output: str, sources: Sequence[Path]) -> bool:
        """Whether ``output`` is whole and was made as ``edit_id``, with these settings, from the present content of ``sources``."""
        entry = self.entries.get(edit_id)
        if entry is None or (entry.status, entry.key, entry.output) != ("done", key, output):
            return False
        record = self._record(entry)
        marks = read_sources(record)
        return (
            len(marks) == len(sources)
            and all(mark.matches(source) for mark, source in zip(marks, sources, strict=True))
            and read_mark(record, "").matches(self.folder / output)
        )

    def done(self, edit_id: str, key: str) -> dict[str, Any] | None:
        """The line of an edit that was made with these settings, or None."""
        entry = self.entries.get(edit_id)
        return self._record(entry) if entry is not None and (entry.status, entry.key) == ("done", key) else None

    def failed_since_opening(self, edit_id: str, key: str) -> str | None:
        """``failed`` or ``unreadable`` if this edit has been so, in any process, since this object was made."""
        entry = self.entries.get(edit_id)
        if entry is None or entry.key != key or entry.start < self.opened_at or entry.status == "done":
            return None
        return entry.status

    def message(self, edit_id: str) -> str:
        """The message of a failed edit."""
        return self._record(self.entries[edit_id])["message"]

    def _record(self, entry: Entry) -> dict[str, Any]:
        with open(self.path, "rb") as file:
            file.seek(entry.start)
            return json.loads(file.readline())

    def write_table(self) -> Path:
        """Write the newest line of every id as a table for spreadsheets; returns its path."""
        latest: dict[str, dict[str, Any]] = {}
        for line in self.path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                record = json.loads(line)
                latest[read_entry(record, 0).id] = flat(record)
        columns = list(dict.fromkeys(name for record in latest.values() for name in record))
        table = self.folder / self.table_name
        with (
            self._appending(),
            atomic_path(table, sole_writer=True) as temporary,
            open(
                temporary, "w", encoding="utf-8-sig", errors="backslashreplace", newline=""
            ) as file,  # the byte-order mark tells spreadsheets that it is UTF-8
        ):
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(latest.values())
        return table

    @contextlib.contextmanager
    def publishing(self) -> Iterator[None]:
        """Inside the block no other process writes tables or a report into the folder."""
        with self._appending():
            yield

    # --- files in the folder ----------------------------------------------------------------------------------------

    def check_free(self, output: str) -> None:
        """Raise :class:`InputError` if ``output`` exists and this program did not make it, or it was changed since."""
        path = self.folder / output
        if not path.exists() and not path.is_symlink():
            return
        if (
            self._is_intact(output)
            or output in self._torn
            or any(output in outputs for outputs in self._in_progress().values())
        ):
            return
        if output not in self.made:
            raise InputError(f"output: {path} exists and was not made by predict. {FREE_IT}")
        try:
            probe_audio(path)
        except (AudioError, OSError):
            return  # damaged: made again
        raise InputError(f"output: {path} was changed after it was made. {FREE_IT}")

    def check_all_free(self, edits: Sequence[Edit], overwrite: bool) -> None:
        """:meth:`check_free` of all edits at once, unless files may be overwritten."""
        problems = Problems()
        for edit in () if overwrite else edits:
            try:
                self.check_free(edit.output)
            except InputError as error:
                problems.add(edit.where, error)
        problems.raise_any(f"output: {self.folder}")

    def _is_intact(self, output: str) -> bool:
        """Whether ``output`` is as it was made."""
        return output in self.made and read_mark(self._record(self.made[output]), "").matches(self.folder / output)

    def _in_progress(self) -> dict[Path, list[str]]:
        """Notes of running or killed processes, with the files that they are or were making."""
        notes = {}
        for note in (self.folder / CLAIMS).glob("[!.]*.json"):
            with contextlib.suppress(OSError, ValueError):
                notes[note] = json.loads(note.read_text())
        return notes

    def tidy(self) -> None:
        """Remove the notes of killed processes whose files have been made since, or do not exist."""
        for note, outputs in self._in_progress().items():
            if all(self._is_intact(output) or not (self.folder / output).exists() for output in outputs):
                with file_lock(note.with_suffix(".lock"), wait=False) as held:
                    if held:
                        note.unlink(missing_ok=True)
        for half in (self.folder / CLAIMS).glob(".*.json"):
            name = half.name.split(".")[1]
            with file_lock(self.folder / CLAIMS / f"{name}.lock", wait=False) as held:
                if held:
                    remove_leftovers(self.folder / CLAIMS / f"{name}.json")
        for lock in set((self.folder / CLAIMS).glob("*.lock")) - {self._results_lock}:
            with file_lock(lock, wait=False):
                pass

    @contextlib.contextmanager
    def claim(self, name: str, wait: bool) -> Iterator[bool]:
        """Hold the right to make a batch of edits, inside the block.

        Args:
            name: The batch.
            wait: Whether to wait for another process that holds the claim.

        Yields:
            Whether the claim is held; False if another process holds it and ``wait`` is not set.
        """
        with file_lock(self.folder / CLAIMS / f"{name}.lock", wait) as held:
            if held:
                self.refresh()
            yield held

    @contextlib.contextmanager
    def making(self, name: str, outputs: Sequence[str]) -> Iterator[None]:
        """Inside a claim, keep a note of the files being made until the block ends; a killed process leaves it behind."""
        note = self.folder / CLAIMS / f"{name}.json"
        for file in (note, *(self.folder / output for output in outputs)):
            remove_leftovers(file)
        write_file(note, json.dumps(list(outputs)))
        yield
        note.unlink(missing_ok=True)
