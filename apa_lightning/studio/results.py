"""The results on the page: progress, the history, and a finished edit next to its source."""

import html
from pathlib import Path
from typing import Any
from urllib.parse import quote

from apa_lightning.audio import load_audio, to_mono
from apa_lightning.studio.jobs import CANCELED, FAILED, WAITING, Job
from apa_lightning.studio.pictures import draw
from apa_lightning.studio.sessions import Session

QUIETEST = 1e-5


def file_url(path: Path) -> str:
    """The address of a file of the session for the page; relative, so that it holds behind a proxy too."""
    return f"gradio_api/file={quote(str(path))}"


def problem(message: object) -> str:
    """A message about something that cannot be done."""
    return f'<div class="status"><div class="problem" role="alert">{html.escape(str(message))}</div></div>'


def note(message: str) -> str:
    """A line about what is going on."""
    return f'<div class="status" role="status">{html.escape(message)}</div>'


def status(job: Job | None, ahead: int = 0) -> str:
    """The state of a job, with its progress and the time that is left."""
    if job is None:
        return note("")
    if job.state == FAILED:
        return problem(job.message)
    count = len(job.requests)
    if job.state == CANCELED:
        return note(f"Canceled. {job.finished} of {count} are finished." if job.finished else "Canceled.")
    if not job.is_open:
        return note("Done.")
    if job.state == WAITING:
        return note(f"Waiting: {ahead} before you." if ahead else "Waiting ...")
    left = job.seconds_left
    text = f"Making {min(job.finished + 1, count)} of {count} · {job.share:.0%}"
    if left is not None:
        text += f" · {int(left) // 60}:{int(left) % 60:02} left"
    if job.stop.is_set():
        text = "Canceling ..."
    return (
        f'<div class="status" role="status">{text}<progress max="1" value="{job.share:.3f}" aria-label="Progress">'
        "</progress></div>"
    )


def history(session: Session) -> list[tuple[str, str]]:
    """Label and id of each edit, the newest first."""
    return [(label(record), record["edit"]) for record in session.edits() if record["kind"] == "edit"]


def label(record: dict[str, Any]) -> str:
    """One line about an edit."""
    settings = record["settings"]
    knobs = f"α {settings['ap_scale']} · ω {settings['time_pooling']} · λ {settings['guidance_scale']}"
    region = settings.get("region")
    part = f" · {region[0]:g} to {region[1]:g} s" if region else ""
    return f"{record['made'][11:16]} {settings['prompt']} · {record['name']}{part} · seed {settings['seed']} · {knobs}"


def compared(session: Session, record: dict[str, Any]) -> list[dict[str, Any]]:
    """Source, edit and text-only version for the player, with gains that make them equally loud (RMS)."""
    upload = session.recording(record["recording"])
    text_only = [one for one in session.edits() if one["kind"] == "text_only" and one["job"] == record["job"]]
    files = [] if upload is None else [("A", "Source", session.file_of(upload))]
    files.append(("B", "Edit", session.audio_of(record)))
    files += [("X", "Text only", session.audio_of(one)) for one in text_only[:1]]
    levels = [_level(path) for _, _, path in files]
    return [
        {
            "key": key,
            "name": name,
            "url": file_url(path),
            "image": file_url(draw(path, path.with_suffix(".png"))),
            "gain": round(min(levels) / level, 4),
        }
        for (key, name, path), level in zip(files, levels, strict=True)
    ]


def _level(path: Path) -> float:
    waveform, _ = load_audio(path)
    return max(float(to_mono(waveform).square().mean().sqrt()), QUIETEST)
