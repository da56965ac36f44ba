"""The recording that is edited: loaded and checked, as the model hears it; and what becomes of an edit of it."""

from numbers import Real

import torch
from torch import Tensor

from apa_lightning.audio import SAMPLE_RATES, fit_length, load_audio, probe_audio, resample, to_mono
from apa_lightning.backbones.base import Backbone
from apa_lightning.editing.request import MAX_SECONDS, SILENCE_PEAK, EditRequest, check_length, check_not_silent
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import first_line

#: Seconds over which an edited region fades into the untouched recording.
REGION_FADE = 0.03


class EditSource:
    """A loaded recording.

    Attributes:
        mono: (S,) at its own ``sample_rate``.
        model_waveform: the same at the backbone's rate: ``samples`` of it, padded to whole latent ``frames``.
    """

    def __init__(self, mono: Tensor, sample_rate: int, model_waveform: Tensor, samples: int, frames: int):
        self.mono, self.sample_rate, self.model_waveform = mono, sample_rate, model_waveform
        self.samples, self.frames = samples, frames

    @classmethod
    def load(cls, request: EditRequest, backbone: Backbone) -> "EditSource":
        """The recording of a request.

        Raises:
            FileNotFoundError, InputError: it cannot be used.
        """
        if isinstance(request.audio, tuple):
            name, (waveform, rate) = "audio", _from_array(*request.audio)
            check_length(waveform.shape[-1] / rate, request.region, name)
        else:
            name = str(request.audio)
            check_length(probe_audio(request.audio).seconds, request.region, name)
            waveform, rate = load_audio(request.audio, max_seconds=MAX_SECONDS)
        mono = to_mono(waveform)
        check_not_silent(mono, name)
        model = resample(mono, rate, backbone.sample_rate)
        frames = max(backbone.window_frames, -(-len(model) // backbone.hop_samples))
        return cls(mono, rate, fit_length(model, frames * backbone.hop_samples), len(model), frames)

    def finish(self, request: EditRequest, edited: Tensor, model_rate: int) -> tuple[Tensor, int]:
        """The edit (S,) cut to the recording's length, at the asked rate and level, spliced into its region."""
        rate = request.sample_rate or self.sample_rate
        length = round(len(self.mono) * rate / self.sample_rate)
        edited = fit_length(resample(edited, model_rate, rate), length)
        if request.region is None and not request.match_level:
            return edited.clamp(-1, 1), rate
        source = fit_length(resample(self.mono, self.sample_rate, rate), length)
        start, end = (0, length) if request.region is None else (round(second * rate) for second in request.region)
        if request.match_level:
            heard = source[start:end] if float(source[start:end].abs().max()) > SILENCE_PEAK else source
            edited = edited * _matching_gain(edited[start:end], heard)
        if request.region is not None:
            edited = torch.lerp(source, edited, _fade(length, start, end, round(REGION_FADE * rate)))
        return edited.clamp(-1, 1), rate


def _from_array(waveform: Tensor, sample_rate: int) -> tuple[Tensor, int]:
    try:
        waveform = torch.atleast_2d(torch.as_tensor(waveform, dtype=torch.float32))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"audio: {type(waveform).__name__} is no waveform ({first_line(error)}).") from None
    if waveform.ndim != 2 or not 1 <= waveform.shape[0] <= 8:
        raise InputError(f"audio: has shape {tuple(waveform.shape)}; give (S,) or (C, S) with at most 8 channels.")
    if (
        not isinstance(sample_rate, Real)
        or not SAMPLE_RATES[0] <= sample_rate <= SAMPLE_RATES[1]
        or int(sample_rate) != sample_rate
    ):
        raise InputError(
            f"audio: the sample rate is {sample_rate!r}; {SAMPLE_RATES[0]} to {SAMPLE_RATES[1]} Hz are supported."
        )
    if not torch.isfinite(waveform).all():
        raise InputError("audio: contains NaN or infinite samples.")
    return waveform, int(sample_rate)


def _matching_gain(edited: Tensor, source: Tensor) -> float:
    """The gain that gives ``edited`` the RMS of ``source``, as far as its peak stays at 1 or below."""
    wanted = source.square().mean().sqrt() / edited.square().mean().sqrt().clamp(min=1e-8)
    return float(torch.minimum(wanted, 1 / edited.abs().max().clamp(min=1e-8)))


def _fade(length: int, start: int, end: int, fade: int) -> Tensor:
    """Weights (length,): 1 inside [start, end), with linear ramps of ``fade`` samples inside its edges, 0 outside."""
    position = torch.arange(length)
    rise = (position - start + 1) / (fade + 1) if start > 0 else torch.ones(length)
    fall = (end - position) / (fade + 1) if end < length else torch.ones(length)
    return torch.minimum(rise, fall).clamp(0, 1)
