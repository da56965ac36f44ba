"""Lines of ``results.jsonl``: writing, reading, and the repair of a torn one."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from apa_lightning.editing.settings import EditSettings

FAILED, UNREADABLE = "failed", "unreadable"


@dataclass(frozen=True, slots=True)
class FileMark:
    """The content of a file: its SHA-256, and its size and time of change, so that an unchanged file is not read again."""

    sha256: str
    bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: str | os.PathLike) -> "FileMark":
        """Read a file."""
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            stat = os.fstat(file.fileno())
        return cls(digest, stat.st_size, stat.st_mtime_ns)

    def matches(self, path: Path) -> bool:
        """Whether ``path`` still holds this content."""
        try:
            stat = path.stat()
            if stat.st_size != self.bytes:
                return False
            return stat.st_mtime_ns == self.mtime_ns or FileMark.of(path).sha256 == self.sha256
        except OSError:
            return False


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of ``results.jsonl`` as it is kept in memory.

    Attributes:
        id: Of the edit.
        status: ``done``, ``failed``, or ``unreadable`` for a recording that was left out.
        key: Digest of the edit's settings.
        output: Name of the result.
        start: Byte of the file at which the line starts.
        is_cut: Whether a prompt was longer than a text encoder reads.
    """

    id: str
    status: str
    key: str
    output: str
    start: int
    is_cut: bool


def done_record(
    edit_id: str, key: str, output: str, sources: Sequence[FileMark], result: FileMark, details: Mapping[str, Any]
) -> dict[str, Any]:
    """The line of a finished edit; ``sources`` are the recording and the files of its audio prompts, in their order."""
    source, *of_prompts = sources
    marks = {**asdict(result), **{f"audio_{name}": value for name, value in asdict(source).items()}}
    if of_prompts:
        files = iter(of_prompts)
        prompts = [one if one["audio"] is None else one | asdict(next(files)) for one in details["audio_prompts"]]
        details = {**details, "audio_prompts": prompts}
    return {"id": edit_id, "status": "done", "output": output, **details, "key": key, **marks, "finished": _now()}


def failed_record(
    edit_id: str, status: str, key: str, output: str, message: str, details: Mapping[str, Any]
) -> dict[str, Any]:
    """The line of an edit that could not be made."""
    about = {"id": edit_id, "status": status, "output": output, "message": message}
    return {**about, **details, "key": key, "finished": _now()}


def read_entry(record: Mapping[str, Any], start: int) -> Entry:
    """The entry of a line; another kind of line raises ``KeyError`` or ``TypeError``."""
    if record["status"] == "done":
        read_mark(record, "")
        read_mark(record, "audio_")
    return Entry(
        record["id"], sys.intern(record["status"]), record["key"], record["output"], start, "lost_text" in record
    )


def read_mark(record: Mapping[str, Any], prefix: str) -> FileMark:
    """The mark of a line's result (no prefix) or source (``audio_``)."""
    return FileMark(*(record[prefix + name] for name in FileMark.__dataclass_fields__))


def read_sources(record: Mapping[str, Any]) -> list[FileMark]:
    """The marks of a line's recording and of the files of its audio prompts."""
    prompts = record.get("audio_prompts") or []
    return [read_mark(record, "audio_"), *(read_mark(one, "") for one in prompts if one["audio"] is not None)]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def mend_last_line(descriptor: int) -> bytes:
    """Cut off and return an incomplete last line; if only its line break is missing, add that."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return b""
    start = size
    while start > 0 and b"\n" not in os.pread(descriptor, size - start, start):
        start = max(0, start - 4096)
    tail = os.pread(descriptor, size - start, start)
    line = tail[tail.rfind(b"\n") + 1 :]
    try:
        read_entry(json.loads(line), 0)
    except (ValueError, KeyError, TypeError):
        os.ftruncate(descriptor, size - len(line))
        return line
    os.write(descriptor, b"\n")
    return b""


def named_output(line: bytes) -> set[str]:
    """The audio file that a damaged line names, as far as it can still be read."""
    found = re.match(rb'\{"id": "(?:[^"\\]|\\.)*", "status": "done", "output": ("(?:[^"\\]|\\.)*")', line)
    try:
        return {json.loads(found[1])} if found else set()
    except ValueError:
        return set()


def flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a record for a table: nested values become columns (``timings.denoise``), lists become JSON."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict) and name not in EditSettings.names():
            flat.update({f"{name}.{inner}": part for inner, part in value.items()})
        else:
            flat[name] = json.dumps(value) if isinstance(value, list | dict) else value
    return flat
