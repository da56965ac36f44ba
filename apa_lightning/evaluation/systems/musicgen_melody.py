"""MusicGen-Melody (Copet et al., arXiv 2306.05284) through transformers: text and the source's chroma."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
import transformers
from torch import Tensor

from apa_lightning.audio import resample
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.editing.source import Recording
from apa_lightning.errors import InputError
from apa_lightning.evaluation.systems.system import System
from apa_lightning.utils.pretrained import (
    LOADING_ERRORS,
    download_model,
    first_line,
    frozen,
    load_whole,
    no_progress_bars,
    resolve_source,
)
from apa_lightning.utils.rng import generator_for

QUIET = 1e-4  # of the peak: 80 dB below it


class MusicGenMelody(System):
    """MusicGen-Melody with its own defaults (guidance 3, top-k 250 sampling) on the task's prompt and the source.

    Its chroma names the loudest pitch class of every frame, however quiet. What lies 80 dB or more below the peak is therefore
    silenced before: frames of zeros read as C, which is also the model's condition for no melody.

    Args:
        source: folder or hub id (``facebook/musicgen-melody``).
    """

    name = "musicgen_melody"
    description = "MusicGen-Melody: the prompt and the source's chroma"
    reads = ("prompt", "seed")

    def __init__(self, source: str):
        self.source = source
        self.description = f"{self.description} ({source})"

    def identity(self) -> dict[str, Any]:
        """Which MusicGen."""
        return {"musicgen": self.source}

    def check(self) -> None:
        """Load it.

        Raises:
            FileNotFoundError, InputError: it cannot be loaded.
        """
        _ = self._parts

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        path = resolve_source(self.source, "musicgen", download_model)
        try:
            with no_progress_bars():
                model = load_whole(transformers.MusicgenMelodyForConditionalGeneration, path, dtype=torch.float32)
                processor = transformers.MusicgenMelodyProcessor.from_pretrained(path)
        except LOADING_ERRORS as error:
            raise InputError(
                f"musicgen: {self.source} cannot be loaded as MusicGen-Melody "
                f"({first_line(error)}). Give its folder or hub id, or leave the setting out."
            ) from error
        return frozen(model), processor

    @torch.no_grad()
    def edit(self, editor: AudioEditor, requests: Sequence[EditRequest]) -> list[EditResult]:
        """One after the other, so that a result depends on its own seed alone."""
        return [self._one(editor, request) for request in requests]

    def inputs(self, source: Recording, prompt: str) -> dict[str, Tensor]:
        """What the model is given: the tokens of the prompt and the source's loudest pitch class in each frame (1, T, 12)."""
        processor = self._parts[1]
        rate = processor.feature_extractor.sampling_rate
        audio = resample(source.waveform, source.sample_rate, rate)
        audio = audio.where(audio.abs() > QUIET * audio.abs().max(), 0)
        # The processor as a whole would cut the audio to the tokenizer's `max_length`, taken as samples, where it has one.
        features = processor.feature_extractor(audio.numpy(), sampling_rate=rate, return_tensors="pt")
        return {**processor.tokenizer([prompt], return_tensors="pt"), **features}

    def _one(self, editor: AudioEditor, request: EditRequest) -> EditResult:
        model = self._parts[0]
        device = editor.backbone.device
        model.to(device)
        source = Recording.load(request.audio)
        codec = model.config.audio_encoder
        wanted = len(source.waveform) / source.sample_rate * codec.frame_rate
        inputs = {name: value.to(device) for name, value in self.inputs(source, request.prompt).items()}
        cuda = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(generator_for(request.seed, "musicgen").initial_seed())
            sound = model.generate(**inputs, do_sample=True, max_new_tokens=int(wanted) + 1)
        made = source.finish(request, sound[0, 0].float().cpu(), codec.sampling_rate)
        return EditResult(request, *made, backbone=self.source)
