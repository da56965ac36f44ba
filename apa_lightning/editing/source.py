"""The recording that is edited: checked in the plan and when it is loaded, prepared for the backbone, made the result."""

import logging
from dataclasses import dataclass
from numbers import Real
from os import PathLike

import torch
from torch import Tensor

from apa_lightning.audio import (
    SAMPLE_RATES,
    AudioError,
    AudioInfo,
    channels_cancel,
    fit_length,
    load_audio,
    probe_audio,
    resample,
    to_mono,
)
from apa_lightning.backbones.base import Backbone
from apa_lightning.editing.regions import MAX_SECONDS, check_fits, continued, crossfaded, new_parts, samples_of
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import first_line

log = logging.getLogger(__name__)

MIN_SECONDS = 0.25
SILENCE_PEAK = 1e-4  # -80 dBFS
PROBED_SECONDS = 5.0


@dataclass(frozen=True)
class Recording:
    """A loaded recording that can be edited: :meth:`load` has checked it.

    Attributes:
        waveform: Mono (S,).
        sample_rate: Hz.
        name: The file, or "audio" for samples that were given.
        stereo: Both channels (2, S) of a recording of two; None of any other.
    """

    waveform: Tensor
    sample_rate: int
    name: str
    stereo: Tensor | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.waveform) / self.sample_rate

    @property
    def peak(self) -> float:
        """Largest magnitude of the mono waveform; above 1 in some files of floating-point numbers."""
        return float(self.waveform.abs().max())

    def sound(self, channels: int) -> Tensor:
        """What a model of ``channels`` channels takes: (2, S) where it and the recording are stereo, else mono (S,)."""
        return self.waveform if self.stereo is None or channels == 1 else self.stereo

    @classmethod
    def load(
        cls, audio: "str | PathLike | tuple[Tensor, int] | Recording", settings: EditSettings | None = None
    ) -> "Recording":
        """Load and check a recording; one that is loaded already is returned itself.

        Args:
            audio: A file, or ``(waveform (S,) or (C, S), sample_rate)``.
            settings: Settings of its edit, which must suit its length.

        Raises:
            FileNotFoundError: If there is no such file.
            InputError: If the recording cannot be read, is too short, too long or silent, or does not suit the settings.
        """
        if isinstance(audio, Recording):
            if settings is not None:
                check_fits(settings, audio.seconds, audio.name)
            return audio
        if isinstance(audio, tuple):
            name, (waveform, rate) = "audio", _from_array(*audio)
            _check_length(waveform.shape[-1] / rate, name)
        else:
            name = str(audio)
            _check_length(probe_audio(audio).seconds, name)
            waveform, rate = load_audio(audio, max_seconds=MAX_SECONDS)
        mono = to_mono(waveform)
        if channels_cancel(waveform):
            log.warning(
                "%s: its channels cancel each other in a mono mix (one has the opposite polarity); "
                "where one channel is needed, the loudest is read alone.",
                name,
            )
        if settings is not None:
            check_fits(settings, mono.shape[-1] / rate, name)
        _check_not_silent(mono, name)
        return cls(mono, rate, name, waveform if len(waveform) == 2 else None)

    def finish(self, settings: EditSettings, edited: Tensor, model_rate: int) -> tuple[Tensor, int]:
        """Turn what a model made into the result.

        Args:
            settings: Of the edit: ``sample_rate``, ``region``, ``extend``, ``crossfade`` and ``match_level``.
            edited: The model's waveform, (S,) or (2, S).
            model_rate: Its sample rate in Hz.

        Returns:
            The edit cut to the length of the recording and its extension, at the wanted rate, with its new parts at the
            wanted level and faded into the recording; and its rate. It stays within 1, but for what is kept of a recording.
            It is stereo (2, S) if the recording and the model are, with the balance that the model gave it, else mono (S,).
        """
        rate = settings.sample_rate or self.sample_rate
        own = self.sound(len(edited) if edited.ndim == 2 else 1)
        if own.ndim < edited.ndim:
            edited = edited.mean(dim=0)
        length = round(len(self.waveform) * rate / self.sample_rate)
        before, after = (round(seconds * rate) for seconds in settings.extend or (0, 0))
        source = continued(fit_length(resample(own, self.sample_rate, rate), length), before, after)
        edited = fit_length(resample(edited, model_rate, rate), source.shape[-1])
        result = source.clone()
        for part in new_parts(settings, self.seconds, settings.crossfade):
            start, end = samples_of(part, rate, source.shape[-1], before)
            if start == end:
                continue
            kept, new = source[..., start:end], edited[..., start:end]
            if settings.match_level:
                new = new * _matching_gain(new, kept if float(kept.abs().max()) > SILENCE_PEAK else source)
            result[..., start:end] = crossfaded(kept, new, settings.crossfade, rate, start > 0, end < source.shape[-1])
        limit = source.abs().clamp(1, max(1, float(own.abs().max()))) if settings.keeps else torch.ones(())
        return result.clamp(-limit, limit), rate


class ModelInput:
    """A recording as a backbone takes it.

    Attributes:
        recording: The recording at its own rate.
        before: Samples in front of the recording at the backbone's rate, where it is extended.
        frames: Latent frames that the recording and its extension fill, at least those of one window.
        samples: Samples of the recording and its extension at the backbone's rate, without padding.
        waveform: Mono (S,) at the backbone's rate, see :func:`continued`, padded to whole latent frames: the audio prompt.
        sound: The same as the backbone encodes it: (S,), or (2, S) where it is stereo.
    """

    def __init__(self, recording: Recording, backbone: Backbone, extend: tuple[float, float] | None = None):
        self.before, after = (round(seconds * backbone.sample_rate) for seconds in extend or (0, 0))
        sound = recording.sound(backbone.audio_channels)
        models = [
            continued(resample(one, recording.sample_rate, backbone.sample_rate), self.before, after)
            for one in ([recording.waveform, sound] if sound.ndim == 2 else [sound])
        ]
        self.recording, self.samples = recording, len(models[0])
        self.frames = max(backbone.window_frames, -(-self.samples // backbone.hop_samples))
        self.waveform, *rest = (fit_length(model, self.frames * backbone.hop_samples) for model in models)
        self.sound = rest[0] if rest else self.waveform.expand(backbone.audio_channels, -1).squeeze(0)


def probe_recording(path: str | PathLike) -> AudioInfo:
    """Check a file as far as its header and first sound tell whether it can be edited, without loading the rest.

    Returns:
        Facts from the header.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If the recording cannot be read, is too short, too long or silent.
    """
    info, name = probe_audio(path), str(path)
    _check_length(info.seconds, name)
    start = 0.0
    while True:  # mostly the first seconds hold a sound
        waveform, _ = load_audio(path, start=start, seconds=PROBED_SECONDS)
        start += PROBED_SECONDS
        try:
            _check_not_silent(to_mono(waveform), name)
            return info
        except AudioError:
            if start >= info.seconds:
                raise


def _check_length(seconds: float, name: str) -> None:
    if seconds < MIN_SECONDS:
        raise AudioError(f"{name}: lasts {seconds:.3f} s; an edit needs at least {MIN_SECONDS} s.")
    if seconds > MAX_SECONDS:
        raise AudioError(
            f"{name}: lasts {seconds:.0f} s; the limit for one edit is {MAX_SECONDS:g} s. Cut it into parts."
        )


def _check_not_silent(waveform: Tensor, name: str) -> None:
    if torch.numel(waveform) == 0 or float(waveform.abs().max()) < SILENCE_PEAK:
        raise AudioError(f"{name}: is digital silence; there is nothing to edit.")


def _from_array(waveform: Tensor, sample_rate: int) -> tuple[Tensor, int]:
    try:
        waveform = torch.atleast_2d(torch.as_tensor(waveform, dtype=torch.float32))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"audio: {type(waveform).__name__} is not a waveform ({first_line(error)}).") from None
    if waveform.ndim != 2 or not 1 <= waveform.shape[0] <= 8:
        raise InputError(f"audio: has shape {tuple(waveform.shape)}; give (S,) or (C, S) with at most 8 channels.")
    low, high = SAMPLE_RATES
    if not isinstance(sample_rate, Real) or not low <= sample_rate <= high or int(sample_rate) != sample_rate:
        raise InputError(f"audio: the sample rate is {sample_rate!r}; {low} to {high} Hz are supported.")
    if not torch.isfinite(waveform).all():
        raise InputError("audio: contains NaN or infinite samples.")
    return waveform, int(sample_rate)


def _matching_gain(edited: Tensor, source: Tensor) -> float:
    """The gain that gives ``edited`` the RMS of ``source``, as far as its peak stays at 1 or below."""
    wanted = source.square().mean().sqrt() / edited.square().mean().sqrt().clamp(min=1e-8)
    return float(torch.minimum(wanted, 1 / edited.abs().max().clamp(min=1e-8)))
