"""The recordings that audio prompts name: each loaded once, its part checked, cut out and laid over the edit's length."""

import math
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor

from apa_lightning.audio import AudioError, fit_length, resample
from apa_lightning.backbones.base import Backbone
from apa_lightning.conditioning.base import AudioConditioner
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.editing.audio_prompts import AudioPrompt, of_prompt
from apa_lightning.editing.settings import EditSettings
from apa_lightning.editing.source import MIN_SECONDS, ModelInput, Recording, probe_recording

#: Seconds behind the needed part that are resampled too, so that its end is not an edge.
MARGIN = 0.1


class Recordings:
    """Loaded recordings: each is read once, however many edits and audio prompts name it."""

    def __init__(self) -> None:
        self._loaded: dict[object, Recording] = {}

    def load(self, audio: str | PathLike | tuple[Tensor, int] | Recording) -> Recording:
        """See :meth:`Recording.load`."""
        if isinstance(audio, Recording):
            return audio
        key = (id(audio[0]), audio[1]) if isinstance(audio, tuple) else Path(audio)
        if key not in self._loaded:
            self._loaded[key] = Recording.load(audio)
        return self._loaded[key]

    def load_prompt(self, number: int, audio: str | PathLike | tuple[Tensor, int] | Recording) -> Recording:
        """The same for the audio prompt ``number``, which messages name."""
        with of_prompt(number, "audio: "):
            return self.load(audio)


@dataclass(frozen=True)
class PromptInput:
    """An audio prompt as the audio encoder takes it, as long as the edit.

    Attributes:
        waveform: (S,) at the backbone's rate, padded to whole latent frames.
        samples: Samples without padding.
    """

    waveform: Tensor
    samples: int


def check_part(prompt: AudioPrompt, seconds: float, name: str) -> None:
    """Raise :class:`AudioError` unless the part of a recording of ``seconds`` is inside of it and long enough."""
    start, end = prompt.start or 0.0, seconds if prompt.end is None else prompt.end
    if end > seconds + 1e-3 or start >= seconds:
        field = "start" if start >= seconds else "end"
        raise AudioError(f"{field}: {start:g} to {end:g} s lies outside {name}, which lasts {seconds:.2f} s.")
    if end - start < MIN_SECONDS - 1e-6:
        field = "start" if prompt.start else "end"
        raise AudioError(f"{field}: {start:g} to {end:g} s of {name} is too short; give at least {MIN_SECONDS} s.")


def probe_prompts(settings: EditSettings) -> None:
    """Check the files of audio prompts as far as their headers and first sounds tell.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If a recording cannot be read, or a part lies outside of it.
    """
    for number, prompt in enumerate(settings.prompt_entries):
        if isinstance(prompt.audio, str | PathLike):
            with of_prompt(number, "audio: "):
                info = probe_recording(prompt.audio)
            with of_prompt(number):
                check_part(prompt, info.seconds, str(prompt.audio))


def prompt_inputs(
    prompts: list[AudioPrompt], edited: ModelInput, backbone: Backbone, recordings: Recordings
) -> list[ModelInput | PromptInput]:
    """What each audio prompt of an edit is read from; prompts of the same part of a recording share it.

    Args:
        prompts: The prompts.
        edited: The recording that is edited.
        backbone: The backbone.
        recordings: Loads other recordings.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If a recording cannot be read, or a part lies outside of it.
    """
    found: dict[tuple, ModelInput | PromptInput] = {(id(edited.recording), 0, None): edited}
    inputs = []
    for number, prompt in enumerate(prompts):
        own = prompt.audio is not None
        recording = recordings.load_prompt(number, prompt.audio) if own else edited.recording
        with of_prompt(number):
            check_part(prompt, len(recording.waveform) / recording.sample_rate, str(recording))
        key = (id(recording), prompt.start or 0, prompt.end)
        if key not in found:
            found[key] = _laid_over(recording, prompt, edited, backbone)
        inputs.append(found[key])
    return inputs


def encode_prompts(
    prompts: list[AudioPrompt],
    inputs: list[list[ModelInput | PromptInput]],
    starts: list[int],
    encoder: AudioConditioner,
    backbone: Backbone,
) -> list[list[Tensor]]:
    """The pooled audio prompts of edits of one length: for each window a tensor (B, N, D) per prompt.

    Args:
        prompts: The prompts, which the edits have in common but for their sound.
        inputs: For each of the B edits the input of each prompt. What prompts share is encoded once.
        starts: First sample of each window.
        encoder: The audio encoder.
        backbone: The backbone, whose window is encoded.
    """
    tokens: list[list[Tensor]] = []
    for start in starts:
        grids: dict[tuple[int, ...], Tensor] = {}
        tokens.append([])
        for prompt, of_edits in zip(prompts, zip(*inputs, strict=True), strict=True):
            key = tuple(map(id, of_edits))
            if key not in grids:
                window = torch.stack([one.waveform[start : start + backbone.window_samples] for one in of_edits])
                lengths = [one.samples - start for one in of_edits]
                grids[key] = encoder(window.to(backbone.device), backbone.sample_rate, lengths)
            tokens[-1].append(pool_tokens(grids[key], prompt.time_pooling, prompt.freq_pooling))
    return tokens


def _laid_over(recording: Recording, prompt: AudioPrompt, edited: ModelInput, backbone: Backbone) -> PromptInput:
    """A part of a recording from the start of the edited one on, cut to the edit's length, or repeated over all of it."""
    rate, length = recording.sample_rate, edited.samples
    start = round((prompt.start or 0) * rate)
    end = len(recording.waveform) if prompt.end is None else round(prompt.end * rate)
    needed = math.ceil((length / backbone.sample_rate + MARGIN) * rate)
    part = resample(recording.waveform[start : min(end, start + needed)], rate, backbone.sample_rate)
    repeated = part.roll(edited.before).repeat(-(-length // len(part)))[:length]
    return PromptInput(fit_length(repeated, len(edited.waveform)), length)
