"""Decodes a sample's bytes to one training example: a window of audio, its audio prompt and its prompt."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from apa_lightning.audio import AudioError, AudioFile, fit_length, resample, to_mono
from apa_lightning.utils.rng import generator_for
from datamodules.shards.captions import CaptionTemplates
from datamodules.shards.metadata import parse_metadata
from datamodules.shards.samples import BadSample

MAX_AUDIO_BYTES = 1 << 28


@dataclass(frozen=True)
class ExampleDecoder:
    """Decodes audio and metadata; every draw depends on (seed, epoch, key) alone.

    Args:
        audio_length_in_s: Length of the window. Shorter clips are padded with zeros at the end.
        sample_rate: In Hz, of the result.
        min_seconds: Shorter clips are refused.
        random_crop: The window's place is drawn (training); otherwise it starts at the clip's start.
        captions: Makes the prompt from the labels.
        seed: The run's seed.
        self_prompts: Share of the samples with an audio prompt of their own that are their own audio prompt nevertheless.
        channels: Of the result: 1 for mono (S,), 2 for stereo (2, S).
    """

    audio_length_in_s: float
    sample_rate: int
    min_seconds: float
    random_crop: bool
    captions: CaptionTemplates
    seed: int
    self_prompts: float = 0.0
    channels: int = 1

    @property
    def samples(self) -> int:
        """Length S of every waveform."""
        return round(self.audio_length_in_s * self.sample_rate)

    def __call__(
        self, key: str, audio: bytes, metadata: bytes, epoch: int | str, audio_prompt: bytes | None = None
    ) -> dict[str, Any]:
        """Decode one sample.

        Returns:
            `key`, `waveform` (S,) or (2, S) float32, `num_samples` of it without padding, its `start` in seconds of the clip,
            `prompt`, `labels`, and all the `metadata` of the JSON. With an audio prompt other than the target also `prompt_waveform` (S,) and
            `prompt_num_samples`: the same window of time, which lies within the shorter of the two recordings.

        Raises:
            BadSample: If the audio, its audio prompt or its metadata cannot be used.
        """
        fields = parse_metadata(metadata)
        draws = self.draw(key, fields, epoch)
        recordings = self._opened(audio, None if draws.self_prompt else audio_prompt)
        start = draws.place * self._room(recordings)
        columns = self._cut(recordings, start)
        labels = fields["labels"]
        return {"key": key, **columns, "start": start, "prompt": draws.prompt, "labels": labels, "metadata": fields}

    def draw(self, key: str, fields: Mapping[str, Any], epoch: int | str) -> "Draws":
        """Draw what is random about a sample in an epoch."""
        generator = generator_for(self.seed, "example", epoch, key)
        place = float(torch.rand((), generator=generator, dtype=torch.float64))
        prompt = self.captions.caption(fields["labels"], fields.get("caption"), generator)
        self_prompt = float(torch.rand((), generator=generator)) < self.self_prompts
        return Draws(place if self.random_crop else 0.0, prompt, self_prompt)

    def windows(self, key: str, most: int, audio: bytes, audio_prompt: bytes | None = None) -> list[dict[str, Any]]:
        """Cut the windows of a sample among which one is drawn in each epoch: up to `most`, no more than overlap by half.

        Each starts at random in a stretch of its own, all of equal length, so that over many samples the starts are
        distributed as those of `__call__`. They depend on the key alone. Without `random_crop` there is one, at the start.

        Returns:
            The columns `waveform`, `num_samples` and `start` of each window, and those of an audio prompt other than the target.

        Raises:
            BadSample: If the audio or its audio prompt cannot be used.
        """
        recordings = self._opened(audio, audio_prompt)
        room = self._room(recordings)
        # A clip that is at most 5 % longer than a window has one.
        count = min(most, 1 + max(0, math.ceil(2 * room / self.audio_length_in_s - 0.1))) if self.random_crop else 1
        places = torch.arange(count) + torch.rand(count, generator=generator_for("windows", key), dtype=torch.float64)
        starts = (room * places / count).tolist() if self.random_crop else [0.0]
        return [{**self._cut(recordings, start), "start": start} for start in starts]

    def _opened(self, audio: bytes, audio_prompt: bytes | None) -> dict[str, AudioFile]:
        """The target, and the audio prompt if it is another recording, by the start of their columns' names."""
        given = {"": audio} if audio_prompt is None else {"": audio, "prompt_": audio_prompt}
        return {name: self._open(data, "audio prompt: " if name else "") for name, data in given.items()}

    def _open(self, audio: bytes, of: str) -> AudioFile:
        if len(audio) > MAX_AUDIO_BYTES:
            raise BadSample(f"{of}audio too large", f"{len(audio)} bytes; at most {MAX_AUDIO_BYTES} are read")
        try:
            recording = AudioFile(audio)
        except AudioError as error:
            raise BadSample(f"{of}unusable audio", str(error)) from None
        if (seconds := recording.info.seconds) < self.min_seconds:
            raise BadSample(f"{of}too short", f"{seconds:.3f} s; at least {self.min_seconds:g} s are needed")
        return recording

    def _room(self, recordings: Mapping[str, AudioFile]) -> float:
        """The last start, in seconds, of a window that lies within the shortest of the recordings."""
        shortest = min(recording.info.seconds for recording in recordings.values())
        return max(0.0, shortest - self.audio_length_in_s)

    def _cut(self, recordings: Mapping[str, AudioFile], start: float) -> dict[str, Any]:
        """The columns of the window that starts at `start` seconds."""
        columns: dict[str, Any] = {}
        for name, recording in recordings.items():
            window = self._window(recording, start, name)
            length = window.shape[-1]
            columns[f"{name}waveform"] = window if length == self.samples else fit_length(window, self.samples)
            columns[f"{name}num_samples"] = min(length, self.samples)
        return columns

    def _window(self, recording: AudioFile, start: float, name: str) -> Tensor:
        """The recording from `start` on, at most as long as the window: (S,) or (2, S)."""
        try:
            waveform, rate = recording.read(start=start, seconds=self.audio_length_in_s)
        except AudioError as error:
            raise BadSample(f"{'audio prompt: ' if name else ''}unusable audio", str(error)) from None
        if self.channels != len(waveform) or self.channels == 1:
            waveform = to_mono(waveform)
        if rate != self.sample_rate:
            waveform = resample(waveform, rate, self.sample_rate)
        # Full-scale 8-bit and lossy files, and resampling, slightly exceed 1.
        waveform = waveform.clamp_(-1.0, 1.0)
        return waveform if waveform.ndim == self.channels else waveform.expand(2, -1)


class Draws(NamedTuple):
    """What is random about a sample in an epoch.

    Attributes:
        place: Of its window, from 0 (its start) to 1 (its end).
        prompt: The text.
        self_prompt: Whether it is its own audio prompt, even if it has another one.
    """

    place: float
    prompt: str
    self_prompt: bool
