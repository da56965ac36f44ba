"""What is asked of the editor, and what it gives back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apa_lightning.adapters.scale import Scale
from apa_lightning.audio import AudioError, save_audio
from apa_lightning.conditioning.pooling import check_pooling_rate
from apa_lightning.errors import InputError

MIN_SECONDS = 0.25
MAX_SECONDS = 1_800.0
SILENCE_PEAK = 1e-4  # -80 dBFS


@dataclass(frozen=True, kw_only=True)
class EditRequest:
    """One edit. Defaults are the paper's operating point for timbre transfer.

    Attributes:
        audio: the audio prompt: a file, or ``(waveform (S,) or (C, S), sample_rate)``.
        prompt: what it shall become, for example "a recording of a violin solo"; empty means unconditional.
        negative_prompt: what it shall not be (c_y- of Eq. 12), for example "a recording of the piano solo".
        ap_scale: alpha, how strongly the recording is kept; also a mapping for single blocks, or one per adapter.
        time_pooling: omega along time, 1, 2, 4 or 8; larger keeps less of the recording.
        freq_pooling: omega along frequency; ``None`` means as ``time_pooling``.
        guidance_scale: lambda of Eq. 12; 1 or less means no unconditional branch.
        num_inference_steps: denoising steps of the whole schedule.
        strength: share of the schedule that is run, above 0. 1 begins with pure noise (the paper); less begins with the
            recording's own latents under so much noise (SDEdit, arXiv 2108.01073), which keeps more of it. With
            ``ap_scale=0`` and 0.75 this is the paper's baseline AudioLDM2-SDEdit.
        scheduler: name of a diffusers scheduler that is compatible with the backbone's.
        seed: of the initial noise.
        region: (start, end) in seconds; only this part is edited.
        sample_rate: of the result in Hz; ``None`` keeps the recording's.
        match_level: give the result the recording's loudness (RMS); otherwise it is left as the vocoder made it.
        id: name of the result; ``None`` means the file's stem.

    Raises:
        InputError: a value outside its range.
    """

    audio: str | PathLike | tuple[Tensor, int]
    prompt: str
    negative_prompt: str = ""
    ap_scale: Scale | Sequence[Scale] = 0.5
    time_pooling: int = 2
    freq_pooling: int | None = None
    guidance_scale: float = 7.5
    num_inference_steps: int = 50
    strength: float = 1.0
    scheduler: str = "DDIMScheduler"
    seed: int = 0
    region: tuple[float, float] | None = None
    sample_rate: int | None = None
    match_level: bool = True
    id: str | None = None

    def __post_init__(self) -> None:
        array = isinstance(self.audio, tuple) and len(self.audio) == 2
        if not array and not isinstance(self.audio, str | PathLike):
            raise InputError(f"audio: is a {type(self.audio).__name__}; give a file, or (waveform, sample_rate).")
        for name in ("prompt", "negative_prompt"):
            if not isinstance(getattr(self, name), str):
                raise InputError(f"{name}: {getattr(self, name)!r} is no text; give a string ('' means unconditional).")
        check_pooling_rate(self.time_pooling, "time_pooling")
        if self.freq_pooling is not None:
            check_pooling_rate(self.freq_pooling, "freq_pooling")
        for scale in self._scales():
            if isinstance(scale, bool) or not isinstance(scale, int | float) or not math.isfinite(scale):
                raise InputError(f"ap_scale: {scale!r} is not a finite number.")
        if not _is_number(self.guidance_scale) or self.guidance_scale < 0:
            raise InputError(
                f"guidance_scale: {self.guidance_scale!r}; give a number of 0 or more (1 or less: no guidance)."
            )
        if not _is_integer(self.num_inference_steps) or not 1 <= self.num_inference_steps <= 1000:
            raise InputError(f"num_inference_steps: {self.num_inference_steps!r}; give 1 to 1000.")
        if not _is_number(self.strength) or not 0 < self.strength <= 1:
            raise InputError(f"strength: {self.strength!r}; give a share above 0, at most 1 (from pure noise).")
        if not isinstance(self.scheduler, str):
            raise InputError(f"scheduler: {self.scheduler!r} is no name; give that of a diffusers scheduler.")
        if not isinstance(self.match_level, bool):
            raise InputError(f"match_level: {self.match_level!r}; give True or False.")
        if not isinstance(self.id, str | None):
            raise InputError(f"id: {self.id!r} is no text; give a string, or leave it out for the file's stem.")
        if not _is_integer(self.seed):
            raise InputError(f"seed: {self.seed!r} is no whole number.")
        if self.sample_rate is not None and (
            not _is_integer(self.sample_rate) or not 4_000 <= self.sample_rate <= 384_000
        ):
            raise InputError(
                f"sample_rate: {self.sample_rate!r}; give 4000 to 384000 Hz, or leave it out for the recording's own."
            )
        if self.region is not None:
            if not _is_pair(self.region) or not all(_is_number(second) for second in self.region):
                raise InputError(f"region: {self.region!r}; give start and end in seconds.")
            start, end = self.region
            if not 0 <= start < end:
                raise InputError(
                    f"region: {start:g} to {end:g} s; the end must lie after the start, and the start at 0 or later."
                )

    def _scales(self) -> list[object]:
        """Every number inside ``ap_scale``."""

        def walk(value: object) -> list[object]:
            inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
            return [value] if inner is None else [number for part in inner for number in walk(part)]

        return walk(self.ap_scale)

    @property
    def name(self) -> str:
        """``id``, else the file's stem, else "audio"."""
        return self.id or ("audio" if isinstance(self.audio, tuple) else Path(self.audio).stem)

    @property
    def batch_key(self) -> tuple[object, ...]:
        """What requests must share to be denoised together, beside their length."""
        return (
            repr(self.ap_scale),
            self.time_pooling,
            self.freq_pooling,
            self.guidance_scale > 1,
            self.num_inference_steps,
            self.strength,
            self.scheduler,
        )

    def settings(self) -> dict[str, Any]:
        """Every knob as plain values, for a results file."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("audio", "id")}
        values["region"] = list(self.region) if self.region else None
        return {"id": self.name, "audio": "(array)" if isinstance(self.audio, tuple) else str(self.audio), **values}


@dataclass(frozen=True)
class EditResult:
    """One edited recording.

    Attributes:
        request: what was asked.
        waveform: mono (S,), as long as the recording.
        sample_rate: Hz.
        adapter: digest(s) of the adapter weights, comma-separated.
        backbone: its name.
        timings: seconds of this edit's share: ``encode``, ``denoise``, ``decode``.
    """

    request: EditRequest
    waveform: Tensor
    sample_rate: int
    adapter: str = ""
    backbone: str = ""
    timings: dict[str, float] = field(default_factory=dict)

    def save(self, path: str | PathLike) -> Path:
        """Write the audio atomically; the suffix names the format. Returns the path."""
        save_audio(path, self.waveform, self.sample_rate)
        return Path(path)

    def record(self) -> dict[str, Any]:
        """One line of a results file: all settings, adapter and backbone, length, level and timings."""
        waveform = self.waveform.float()
        measures = {
            "seconds": round(len(waveform) / self.sample_rate, 4),
            "rms": round(float(waveform.square().mean().sqrt()), 6),
            "peak": round(float(waveform.abs().max()), 6),
        }
        return {
            **self.request.settings(),
            "output_sample_rate": self.sample_rate,
            "backbone": self.backbone,
            "adapter_digest": self.adapter,
            **measures,
            "timings": {name: round(seconds, 3) for name, seconds in self.timings.items()},
        }


def check_length(seconds: float, region: tuple[float, float] | None, name: str) -> None:
    """Raise :class:`AudioError` when a recording of ``seconds`` is too short, too long, or ends before ``region``."""
    if seconds < MIN_SECONDS:
        raise AudioError(f"{name}: lasts {seconds:.3f} s; an edit needs at least {MIN_SECONDS} s.")
    if seconds > MAX_SECONDS:
        raise AudioError(
            f"{name}: lasts {seconds:.0f} s; the limit for one edit is {MAX_SECONDS:g} s. Cut it into parts."
        )
    if region is not None and region[1] > seconds + 1e-3:
        raise AudioError(f"region: {region[0]:g} to {region[1]:g} s lies outside {name}, which lasts {seconds:.2f} s.")


def check_not_silent(waveform: Tensor, name: str) -> None:
    """Raise :class:`AudioError` when there is nothing to hear in ``waveform`` (..., S)."""
    if torch.numel(waveform) == 0 or float(waveform.abs().max()) < SILENCE_PEAK:
        raise AudioError(f"{name}: is digital silence; there is nothing to edit.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
