"""Requests to an editor, and its results."""

from dataclasses import dataclass, field, fields
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from apa_lightning.audio import save_audio
from apa_lightning.editing.audio_prompts import plain_prompts
from apa_lightning.editing.knobs import TEXT_CHOICE, differs, is_text, knob
from apa_lightning.editing.settings import EditSettings
from apa_lightning.editing.source import Recording
from apa_lightning.errors import InputError


@dataclass(frozen=True, kw_only=True)
class EditRequest(EditSettings):
    """One edit: a recording, a prompt, and the settings.

    Attributes:
        audio: The audio prompt: a file, ``(waveform (S,) or (C, S), sample_rate)``, or a :class:`Recording`.
        prompt: Text that the recording shall become, for example "a recording of a violin solo"; "" means unconditional.
        id: Name of the result; None means the file's stem.

    Raises:
        InputError: If a value is out of its range.
    """

    audio: str | PathLike | tuple[Tensor, int] | Recording
    prompt: str = knob(is_text, TEXT_CHOICE, batch=differs)
    id: str | None = knob(is_text, "give a string, or leave it out for the file's stem", None, batch=differs)

    def __post_init__(self) -> None:
        array = isinstance(self.audio, tuple) and len(self.audio) == 2
        if not array and not isinstance(self.audio, str | PathLike | Recording):
            raise InputError(f"audio: is a {type(self.audio).__name__}; give a file, or (waveform, sample_rate).")
        super().__post_init__()

    @property
    def name(self) -> str:
        """``id``, else the file's stem, else "audio"."""
        return self.id or ("audio" if isinstance(self.audio, tuple) else Path(str(self.audio)).stem)

    def settings(self) -> dict[str, Any]:
        """Every knob as plain values, for a results file."""
        names = ["prompt", *(one.name for one in fields(self) if one.name not in ("audio", "prompt", "id"))]
        values = {name: getattr(self, name) for name in names}
        values["audio_prompts"] = plain_prompts(self.audio_prompts)
        return {"id": self.name, "audio": "(array)" if isinstance(self.audio, tuple) else str(self.audio), **values}


@dataclass(frozen=True)
class EditResult:
    """One edited recording.

    Attributes:
        request: What was asked for.
        waveform: As long as the recording and its extension: mono (S,), or stereo (2, S) where recording and backbone are.
        sample_rate: Hz.
        adapter: Digests of the adapters' weights, comma-separated.
        backbone: Name of the backbone.
        timings: Seconds of this edit's share: ``encode``, ``denoise``, ``decode``.
        lost_text: Ends of the prompts that are behind a text encoder's limit, by prompt and encoder: ``prompt.T5``. They had no
            influence.
    """

    request: EditRequest
    waveform: Tensor
    sample_rate: int
    adapter: str = ""
    backbone: str = ""
    timings: dict[str, float] = field(default_factory=dict)
    lost_text: dict[str, str] = field(default_factory=dict)

    def save(self, path: str | PathLike) -> Path:
        """Write the audio atomically and return the path; the suffix names the format."""
        save_audio(path, self.waveform, self.sample_rate)
        return Path(path)

    def record(self) -> dict[str, Any]:
        """One line of a results file: all settings, adapter and backbone, length, level, timings and text that was cut."""
        waveform = self.waveform.float()
        return {
            **self.request.settings(),
            "output_sample_rate": self.sample_rate,
            "backbone": self.backbone,
            "adapter_digest": self.adapter,
            "seconds": round(waveform.shape[-1] / self.sample_rate, 4),
            "rms": round(float(waveform.square().mean().sqrt()), 6),
            "peak": round(float(waveform.abs().max()), 6),
            "timings": {name: round(seconds, 3) for name, seconds in self.timings.items()},
            **({"lost_text": self.lost_text} if self.lost_text else {}),
        }
