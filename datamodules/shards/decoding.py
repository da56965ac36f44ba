"""Decodes a sample's bytes to one training example: a window of mono audio and its prompt."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from apa_lightning.audio import AudioError, fit_length, load_audio, probe_audio, resample, to_mono
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
    """

    audio_length_in_s: float
    sample_rate: int
    min_seconds: float
    random_crop: bool
    captions: CaptionTemplates
    seed: int

    @property
    def samples(self) -> int:
        """Length S of every waveform."""
        return round(self.audio_length_in_s * self.sample_rate)

    def __call__(self, key: str, audio: bytes, metadata: bytes, epoch: int | str) -> dict[str, Any]:
        """Decode one sample.

        Returns:
            `key`, `waveform` (S,) float32 mono, `num_samples` of it without padding, `prompt`, `labels`, and all the
            `metadata` of the JSON.

        Raises:
            BadSample: If the audio or its metadata cannot be used.
        """
        fields = parse_metadata(metadata)
        generator = generator_for(self.seed, "example", epoch, key)
        mono = self._window(audio, generator)
        prompt = self.captions.caption(fields["labels"], fields.get("caption"), generator)
        return {
            "key": key,
            "waveform": fit_length(mono, self.samples),
            "num_samples": min(len(mono), self.samples),
            "prompt": prompt,
            "labels": fields["labels"],
            "metadata": fields,
        }

    def _window(self, audio: bytes, generator: torch.Generator) -> Tensor:
        place = float(torch.rand((), generator=generator, dtype=torch.float64))
        if len(audio) > MAX_AUDIO_BYTES:
            raise BadSample("audio too large", f"{len(audio)} bytes; at most {MAX_AUDIO_BYTES} are read")
        try:
            info = probe_audio(audio)
            if info.seconds < self.min_seconds:
                raise BadSample("too short", f"{info.seconds:.3f} s; at least {self.min_seconds:g} s are needed")
            spare = max(0.0, info.seconds - self.audio_length_in_s)
            start = place * spare if self.random_crop else 0.0
            waveform, rate = load_audio(audio, start=start, seconds=self.audio_length_in_s)
        except AudioError as error:
            raise BadSample("unusable audio", str(error)) from None
        mono = to_mono(waveform)
        if rate != self.sample_rate:
            mono = resample(mono, rate, self.sample_rate)
        # Full-scale 8-bit and lossy files, and resampling, slightly exceed 1.
        return mono.clamp(-1.0, 1.0)
