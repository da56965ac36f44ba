"""Sessions: one folder for each browser, with its recordings and its edits with all their settings.

Nothing that a browser sends becomes part of a path: folders and files have random names, and names of uploads are only text.
"""

import contextlib
import json
import re
import secrets
import shutil
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from apa_lightning.audio import probe_audio
from apa_lightning.editing.request import EditResult
from apa_lightning.editing.source import Recording
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import write_file

NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Upload:
    """A recording that a browser gave.

    Attributes:
        id: Name of its folder.
        name: What the browser called the file.
        seconds: Its length.
        sample_rate: Hz.
        suffix: Of the stored file.
    """

    id: str
    name: str
    seconds: float
    sample_rate: int
    suffix: str


class Session:
    """The folder of one browser.

    Args:
        folder: Its path. It is made with the first recording.
        max_seconds: Longest recording that is taken.
    """

    def __init__(self, folder: Path, max_seconds: float = 300.0):
        self.folder, self.max_seconds = folder, max_seconds

    @property
    def token(self) -> str:
        """The secret by which the browser proves that the session is its own."""
        return self.folder.name

    def add_recording(self, path: str | Path, name: str) -> Upload:
        """Check a recording and keep a copy.

        Args:
            path: The uploaded file.
            name: What the browser called it.

        Raises:
            InputError: If it cannot be read, is silent, too short or too long.
        """
        name = Path(name.replace("\\", "/")).name[-100:] or "recording"
        try:
            seconds = probe_audio(path).seconds
            if seconds > self.max_seconds:
                raise InputError(
                    f"{name}: lasts {seconds:.0f} s; this studio takes up to {self.max_seconds:g} s. Cut it into parts."
                )
            recording = Recording.load(path)
        except (InputError, FileNotFoundError) as error:
            raise InputError(str(error).replace(str(path), name)) from None
        suffix = Path(path).suffix.lower()
        suffix = suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ".audio"
        upload = Upload(secrets.token_hex(16), name, recording.seconds, recording.sample_rate, suffix)
        (self.folder / upload.id).mkdir(parents=True)
        shutil.copyfile(path, self.file_of(upload))
        write_file(self.folder / upload.id / "recording.json", json.dumps(asdict(upload)))
        return upload

    def recording(self, upload_id: object) -> Upload | None:
        """One of the recordings, or None where there is none of that name."""
        content = self._read(upload_id, "recording.json")
        return None if content is None else Upload(**content)

    def file_of(self, upload: Upload) -> Path:
        """The stored file of a recording."""
        return self.folder / upload.id / f"recording{upload.suffix}"

    def add_edit(self, result: EditResult, about: dict[str, Any]) -> dict[str, Any]:
        """Keep a finished edit as WAV and FLAC.

        Args:
            result: The edit.
            about: What its record says next to the result's own.

        Returns:
            The record.
        """
        edit_id = secrets.token_hex(16)
        stem = file_stem(result.request.prompt, result.request.seed)
        for suffix in ("wav", "flac"):
            result.save(self.folder / edit_id / f"{stem}.{suffix}")
        record = {**about, "edit": edit_id, "stem": stem, "made": datetime.now().isoformat(timespec="microseconds")}
        record["settings"] = result.record()
        write_file(self.folder / edit_id / "edit.json", json.dumps(record))
        return record

    def edit(self, edit_id: object) -> dict[str, Any] | None:
        """The record of one of the edits, or None where there is none of that name."""
        return self._read(edit_id, "edit.json")

    def edits(self) -> list[dict[str, Any]]:
        """The records of all edits, the newest first."""
        found = [self.edit(path.parent.name) for path in self.folder.glob("*/edit.json")]
        return sorted(filter(None, found), key=lambda record: record["made"], reverse=True)

    def audio_of(self, record: dict[str, Any], suffix: str = "wav") -> Path:
        """The file of an edit."""
        return self.folder / record["edit"] / f"{record['stem']}.{suffix}"

    def _read(self, name: object, file: str) -> dict[str, Any] | None:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            return None
        try:
            return json.loads((self.folder / name / file).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None


class Sessions:
    """The sessions of all browsers.

    Args:
        folder: Where they are kept.
        max_seconds: Longest recording that is taken.
        max_gigabytes: Size of the folder from which on nothing more is taken.
        max_megabytes: Largest file that is taken.
    """

    def __init__(self, folder: Path, max_seconds: float = 300.0, max_gigabytes: float = 20.0, max_megabytes: int = 100):
        self.folder, self.max_seconds = folder, max_seconds
        self.max_gigabytes, self.max_megabytes = max_gigabytes, max_megabytes
        folder.mkdir(parents=True, exist_ok=True)

    def check_room(self) -> None:
        """Refuse what would be kept while the folder is full.

        Raises:
            InputError: If it is.
        """
        used = 0
        for path in self.folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # a temporary file, gone by now
                used += path.stat().st_size
        if used >= self.max_gigabytes * 1e9:
            raise InputError(
                f"The studio is full: its folder has {used / 1e9:.3g} GB. Whoever runs it can delete recordings and edits "
                f"there, or give more than {self.max_gigabytes:g} as `max_gigabytes`."
            )

    def open(self, token: object) -> Session:
        """The session of a token, or a new one where that is not a token."""
        known = isinstance(token, str) and NAME.fullmatch(token)
        return Session(self.folder / (str(token) if known else secrets.token_hex(16)), self.max_seconds)


def file_stem(prompt: str, seed: int) -> str:
    """A file name of plain letters that tells edits apart."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:40].strip("-")
    return f"{words or 'edit'}-{seed}"
