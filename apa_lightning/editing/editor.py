"""Editing a recording by text: the paper's inference (Sec. 3.4, Eq. 12) as a Python call, without Lightning.

from apa_lightning import AudioEditor

editor = AudioEditor.from_pretrained()
result = editor.edit("piano.wav", prompt="a recording of a violin solo", negative_prompt="a recording of the piano solo")
result.save("violin.wav")
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from os import PathLike
from typing import Any, cast, overload

import torch
from torch import Tensor
from tqdm.auto import tqdm

from apa_lightning.backbones.base import Backbone
from apa_lightning.backbones.edit_batch import EditBatch
from apa_lightning.backbones.factory import load_backbone
from apa_lightning.backbones.vocoding import Vocoder
from apa_lightning.conditioning.audio_mae import LoaLayers, load_conditioner
from apa_lightning.conditioning.base import AudioConditioner
from apa_lightning.conditioning.dropout import DroppedAudio
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.diffusion.windows import Windows
from apa_lightning.editing.audio_prompts import AudioPrompt
from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.parts import EditParts
from apa_lightning.editing.prompt_inputs import PromptInput, Recordings, encode_prompts, prompt_inputs
from apa_lightning.editing.regions import new_parts
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.editing.source import ModelInput, Recording
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import EMBEDDED, first_line


class AudioEditor(EditParts):
    """Edits recordings with a backbone, an audio encoder and one or more adapters, see :class:`EditParts`."""

    @classmethod
    def from_pretrained(
        cls,
        backbone: str | PathLike | Backbone = "embedded",
        adapter: str | PathLike | Sequence[str | PathLike | None] | None = "auto",
        audio_encoder: str | PathLike | AudioConditioner = "embedded",
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        unconditional_audio: DroppedAudio | None = None,
        vocoder: Vocoder | None = None,
        edit_defaults: Mapping[str, Any] | str | PathLike | None = None,
    ) -> "AudioEditor":
        """Load everything; without arguments the pocket backbone that comes with the package, and its adapter.

        Args:
            backbone: ``embedded``, a folder, a hub id, or a backbone object.
            adapter: Adapter file, a folder or hub id with one, or several; ``embedded`` is the one that was trained on the
                embedded backbone; ``None`` is an untrained adapter, a copy of the backbone's own text K/V. ``auto`` means
                ``embedded`` with the embedded backbone and ``None`` with any other.
            audio_encoder: ``embedded``, an AudioMAE folder, weights file or hub id, or an encoder object.
            device: Where the backbone and the encoder run.
            dtype: Precision of the backbone; the audio encoder stays in float32.
            unconditional_audio: See :class:`EditParts`.
            vocoder: The ``backbone``'s own, the same ``refined`` by Griffin-Lim, or ``griffin_lim`` alone; ``None`` means what
                suits the backbone: ``refined`` for the pocket, else ``backbone``.
            edit_defaults: Defaults of the knobs that an edit leaves out, instead of those of the backbone: ``paper``, or what
                :class:`EditDefaults` takes.

        Raises:
            FileNotFoundError, InputError: If a source cannot be loaded, or the parts do not fit each other.
        """
        check_device(device)
        defaults = None if edit_defaults is None else EditDefaults(edit_defaults)
        if isinstance(adapter, str) and adapter == "auto":
            adapter = EMBEDDED if str(backbone) == EMBEDDED else None
        files: list[Any] = list(adapter) if isinstance(adapter, list | tuple) else [adapter]
        if not files or not all(isinstance(file, str | PathLike | None) for file in files):
            raise InputError(f"adapter: {adapter!r}; give a file, a list of one or more, or None for an untrained one.")
        parts = load_backbone(backbone, dtype, vocoder=vocoder)
        loaded = [parts.new_adapter(file) for file in files]
        encoder = load_conditioner(audio_encoder, cast(LoaLayers | None, loaded[0].metadata.get("loa_layers")))
        for part in (parts, *loaded):
            part.to(device, dtype)
        editor = cls(parts, encoder.to(device), loaded, unconditional_audio, defaults)
        editor.check_defaults()
        return editor

    @overload
    def edit(self, audio: Sequence[EditRequest], **options: Any) -> list[EditResult]: ...
    @overload
    def edit(self, audio: EditRequest | str | PathLike | tuple[Tensor, int], **knobs: Any) -> EditResult: ...

    def edit(self, audio, *, batch_size: int = 4, progress: bool | Callable[[int, int], object] = True, **knobs):
        """Edit one recording, or many.

        Args:
            audio: A file or ``(waveform, sample_rate)``; or one request; or a sequence of requests.
            batch_size: Requests that share their knobs are denoised together, so many at a time.
            progress: Show a progress bar over all denoising steps; or a function that is called with the steps that are done
                and all steps, before the first one and after each. What it raises stops the edit.
            **knobs: Fields of :class:`EditRequest` for a file or waveform (``prompt=...``). Those that are left out are as in
                :attr:`edit_defaults`; the result's ``request`` has their values.

        Returns:
            An :class:`EditResult`, or a list of them in the order of the requests. A result does not depend on the batch
            it was computed in, beyond rounding.

        Raises:
            FileNotFoundError, InputError: If the audio or a knob cannot be used; nothing has been computed then.
        """
        if isinstance(audio, Sequence) and not isinstance(audio, str | bytes | tuple):
            if knobs or not all(isinstance(request, EditRequest) for request in audio):
                raise InputError("edit: many recordings are given as a list of EditRequest, each with its own knobs.")
            return self._edit_all(audio, batch_size, progress)
        if isinstance(audio, EditRequest) and knobs:
            raise InputError(f"edit: {', '.join(knobs)} next to an EditRequest; give it to the EditRequest.")
        request = audio if isinstance(audio, EditRequest) else EditRequest(audio=audio, **knobs)
        return self._edit_all([request], batch_size, progress)[0]

    def _edit_all(
        self, requests: Sequence[EditRequest], batch_size: int, progress: bool | Callable[[int, int], object]
    ) -> list[EditResult]:
        if not isinstance(batch_size, int) or batch_size < 1:
            raise InputError(f"batch_size: {batch_size!r}; give 1 or more.")
        requests = [self.filled(request) for request in requests]
        for problem in (problem for request in requests for problem in self.problems(request)):
            raise problem
        files = Recordings()
        recordings = [Recording.load(files.load(request.audio), request) for request in requests]
        inputs = [
            ModelInput(recording, self.backbone, request.extend)
            for recording, request in zip(recordings, requests, strict=True)
        ]
        read = [
            prompt_inputs(self.prompts(request), model_input, self.backbone, files)
            for request, model_input in zip(requests, inputs, strict=True)
        ]
        groups: dict[tuple, list[int]] = {}
        for i, (request, model_input) in enumerate(zip(requests, inputs, strict=True)):
            groups.setdefault((model_input.frames, *request.batch_key), []).append(i)
        batches = [
            indices[i : i + batch_size] for indices in groups.values() for i in range(0, len(indices), batch_size)
        ]
        results: dict[int, EditResult] = {}
        total = sum(self.backbone.count_steps(requests[i], inputs[i].frames) for i, *_ in batches)
        with tqdm(total=total, desc="editing", unit="step", disable=progress is not True) as bar:
            on_step = _counted(progress, total) if callable(progress) else bar.update
            for batch in batches:
                parts = [requests[i] for i in batch], [inputs[i] for i in batch], [read[i] for i in batch]
                done = self._edit_batch(*parts, on_step)
                results |= dict(zip(batch, done, strict=True))
        return [results[i] for i in range(len(requests))]

    @torch.no_grad()
    def _edit_batch(
        self,
        requests: list[EditRequest],
        inputs: list[ModelInput],
        read: list[list[ModelInput | PromptInput]],
        on_step: Callable[..., Any],
    ) -> list[EditResult]:
        """Requests of one length and the same knobs, apart from prompts, guidance scales, seed and region."""
        backbone, first, clock = self.backbone, requests[0], [self._now()]
        kept, prompts = self._kept(requests, inputs), self.prompts(first)
        shared = None if kept is None else kept.all(dim=0).float()
        windows = Windows(inputs[0].frames, backbone.window_frames, first.window_overlap, shared)
        samples = [frame * backbone.hop_samples for frame in windows.starts]
        tokens = encode_prompts(prompts, read, samples, self.audio_encoder, backbone)
        changes = any(one.ap_scale_end != one.ap_scale for one in prompts)
        batch = EditBatch(
            settings=first,
            prompts=[request.prompt for request in requests],
            negative_prompts=[request.negative_prompt or "" for request in requests],
            guidance=torch.tensor([one.guidance for one in requests], device=backbone.device, dtype=backbone.dtype).T,
            seeds=[request.seed for request in requests],
            waveform=torch.stack([model_input.sound for model_input in inputs]).to(backbone.device),
            lengths=[model_input.samples for model_input in inputs],
            frames=inputs[0].frames,
            kept=kept,
            windows=windows,
            adapters=[self.adapters[one.adapter] for one in prompts],
            tokens=tokens,
            nothing=[self._nothing(one, prompt) for one, prompt in zip(tokens[0], prompts, strict=True)],
            ap_scale_at=(lambda share: self.ap_scale_at(first, share)) if changes else None,
            on_step=on_step,
        )
        sample = backbone.sampler(batch)
        clock.append(self._now())

        with backbone.applied(batch.adapters, [one.ap_scale for one in prompts]):
            encoded = sample()
        clock.append(self._now())

        audio = backbone.decode(encoded).cpu()
        outputs = [
            model_input.recording.finish(request, edited, backbone.sample_rate)
            for model_input, request, edited in zip(inputs, requests, audio, strict=True)
        ]
        clock.append(self._now())
        seconds = [(end - start) / len(requests) for start, end in pairwise(clock)]
        timings = dict(zip(("encode", "denoise", "decode"), seconds, strict=True))
        digest = ",".join(one.digest() for one in self.adapters)
        return [
            EditResult(request, *output, digest, backbone.name, timings, self._lost_text(request))
            for request, output in zip(requests, outputs, strict=True)
        ]

    def _lost_text(self, request: EditRequest) -> dict[str, str]:
        """What the text encoders cut off the texts that this request uses."""
        used = ("prompt", "negative_prompt") if request.guidance else ("prompt",)
        return {
            f"{name}.{encoder}": text
            for name in used
            for encoder, text in self.backbone.lost_text(getattr(request, name)).items()
        }

    def _now(self) -> float:
        """Seconds, after everything that was given to a GPU is done."""
        if self.backbone.device.type == "cuda":
            torch.cuda.synchronize(self.backbone.device)
        return time.perf_counter()

    def _nothing(self, tokens: Tensor, prompt: AudioPrompt) -> Tensor:
        """The audio prompt (1, N, D) of the unconditional branch."""
        if self.unconditional_audio == "zero_fbank":
            return pool_tokens(self.audio_encoder.null(), prompt.time_pooling, prompt.freq_pooling)
        return torch.zeros_like(tokens[:1])

    def _kept(self, requests: list[EditRequest], inputs: list[ModelInput]) -> Tensor | None:
        """The frames (B, T) that the requests keep."""
        if not any(request.keeps for request in requests):
            return None
        kept = torch.ones(len(requests), inputs[0].frames, dtype=torch.bool)
        rate = self.backbone.sample_rate / self.backbone.hop_samples
        for row, request, model_input in zip(kept, requests, inputs, strict=True):
            before = model_input.before / self.backbone.hop_samples
            for start, end in new_parts(request, model_input.recording.seconds):
                first, last = max(before + start * rate, 0), min(before + end * rate, inputs[0].frames)
                row[int(first) : math.ceil(last)] = False
        return kept


def _counted(progress: Callable[[int, int], object], total: int) -> Callable[..., object]:
    """A function that adds up the steps it is called with and gives their sum to ``progress``."""
    done = 0

    def on_step(steps: int = 1) -> object:
        nonlocal done
        done += steps
        return progress(done, total)

    progress(0, total)
    return on_step


def check_device(device: str | torch.device) -> None:
    """Raise :class:`InputError` unless tensors can be put there: before a large backbone is read."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(f"device: {device!r} cannot be used ({first_line(error)}). 'cpu' always can.") from None
