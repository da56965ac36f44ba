"""The service behind the page: the one editor, the sessions of the browsers and the queue."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apa_lightning.adapters.files import short_name
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.source import Recording
from apa_lightning.errors import InputError
from apa_lightning.studio import form
from apa_lightning.studio.jobs import Job, Jobs
from apa_lightning.studio.sessions import Sessions, Upload


@dataclass
class Studio:
    """The studio.

    Attributes:
        editor: The one editor in memory.
        sessions: What is kept of each browser.
        jobs: The queue.
        parts: Flags of the editor's parts that differ from their defaults.
    """

    editor: AudioEditor
    sessions: Sessions
    jobs: Jobs
    parts: Mapping[str, Any]

    @property
    def about(self) -> str:
        """One line about the model, for the page."""
        adapter = self.editor.adapters[0]
        if adapter.is_untrained:
            return f"Model: {short_name(self.editor.backbone.name)}, without a trained adapter: edits keep little of a recording."
        return f"Model: {short_name(self.editor.backbone.name)}, adapter: {adapter.name}."

    def accept(self, token: object, path: str) -> Upload:
        """Check an upload and keep a copy.

        Raises:
            InputError: If it cannot be used, or the studio's folder is full.
        """
        self.sessions.check_room()
        return self.sessions.open(token).add_recording(path, Path(path).name)

    def submit(self, token: object, values: Mapping[str, Any]) -> Job:
        """Queue the edits that a form asks for.

        Raises:
            InputError: If there is no recording, a field cannot be used, or the queue or the folder is full.
        """
        self.sessions.check_room()
        session = self.sessions.open(token)
        upload = session.recording(values.get("recording"))
        if upload is None:
            raise InputError("Drop or record a recording first.")
        recording = replace(Recording.load(session.file_of(upload)), name=upload.name)
        variations, text_only = values.get("variations"), bool(values.get("text_only"))
        if not isinstance(variations, int | float) or variations not in range(1, form.MOST_VARIATIONS + 1):
            raise InputError(f"variations: {variations}; give 1 to {form.MOST_VARIATIONS}.")
        requests = form.requests(_knobs_of(values), recording, self.editor, int(variations), text_only)

        def keep(result: Any, number: int) -> None:
            kind = "text_only" if text_only and number == len(requests) - 1 else "edit"
            about = {"kind": kind, "job": job_id, "recording": upload.id, "name": upload.name}
            session.add_edit(result, about)

        job_id = secrets.token_hex(8)
        job = Job(session.token, requests, keep)
        self.jobs.submit(job)
        return job


def _knobs_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The form's fields as knobs: the region as a pair, and texts without spaces around them."""
    found = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
    region = found.pop("region", None)
    if isinstance(region, Mapping):
        found["region"] = (region.get("start"), region.get("end"))
    if found.get("task") == "":
        found["task"] = None
    return found
