"""The backbone: MusicGen that draws EnCodec's codes one after the other."""

import inspect
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AutoTokenizer,
    DynamicCache,
    EncoderDecoderCache,
    MusicgenForCausalLM,
    MusicgenForConditionalGeneration,
)

from apa_lightning.adapters.base import AttentionLayer
from apa_lightning.audio import fit_length
from apa_lightning.backbones.base import Backbone, Objective
from apa_lightning.backbones.edit_batch import EditBatch, Sampling
from apa_lightning.backbones.factory import stored_defaults
from apa_lightning.backbones.musicgen.attention import NAME, DecoupledAudio, adaptable_layers
from apa_lightning.backbones.prompt_encoder import PromptEncoder, TextStates
from apa_lightning.diffusion.objectives import LossWeighting
from apa_lightning.errors import InputError
from apa_lightning.tokens.delay_pattern import delayed, undelayed
from apa_lightning.tokens.losses import cross_entropy
from apa_lightning.tokens.sampling import UNKNOWN, Model, continued, guided, random_numbers
from apa_lightning.utils.pretrained import (
    LOADING_ERRORS,
    check_dtype,
    download_model,
    first_line,
    frozen,
    load_whole,
    no_progress_bars,
    only_errors,
    resolve_source,
)
from apa_lightning.utils.windows import blend_windows, window_starts, window_weights

log = logging.getLogger(__name__)

#: The name of the cache among the arguments of the decoder: transformers 5.24 has renamed it.
CACHE = "cache" if "cache" in inspect.signature(MusicgenForCausalLM.forward).parameters else "past_key_values"
PIECE_SECONDS, OVERLAP_SECONDS = 30.0, 1.0
"""Audio that EnCodec converts at a time, and by how much the pieces overlap."""


class MusicgenBackbone(Backbone):
    """MusicGen's parts, frozen and in eval mode, so that dropout and layerdrop are off. It generates codes (B, K, T).

    Every decoder layer is adapted. The adapter's keys and values read tokens as wide as the text encoder's states (768).

    Args:
        source: A folder in the hub's layout, or a hub id: ``facebook/musicgen-small``, ``-medium`` or ``-large``. Not a Melody or
            stereo model.
        window_seconds: Length of the window that is learned, and that an edit is made in: what the audio encoder encodes.
            MusicGen itself was trained on 30 s. Longer edits are made window by window, each as a continuation of the one before.
    """

    kind, sampling = "musicgen", cast(Sampling, "tokens")
    encoding_names = ("codes",)
    layer_attention = DecoupledAudio
    model: Any  # MusicgenForConditionalGeneration
    _prompt_encoder: PromptEncoder

    def __init__(self, source: str, window_seconds: float = 10.24):
        super().__init__()
        if not 1 <= window_seconds <= 30:
            raise InputError(f"window_seconds: {window_seconds}; give 1 to 30 s, as much as the audio encoder encodes.")
        self.source, self.name, self.wanted_seconds = source, str(source), window_seconds
        self._said: set[str] = set()

    @classmethod
    def from_pretrained(
        cls, source: str | os.PathLike, dtype: torch.dtype = torch.float32, name: str | None = None
    ) -> "MusicgenBackbone":
        """Load a folder or hub id.

        Args:
            source: See the class.
            dtype: Of the frozen weights.
            name: Shown in adapter files and results; ``None`` means ``source``.

        Raises:
            FileNotFoundError: If there is no such source.
            InputError: If the hub cannot be read, or the folder is not MusicGen or is damaged.
        """
        backbone = cls(str(source))
        backbone.name = name or backbone.name
        backbone.load_weights(dtype)
        return backbone

    def load_weights(self, dtype: torch.dtype = torch.float32) -> None:
        """Load the model and its tokenizer, once."""
        if hasattr(self, "model"):
            return
        check_dtype(dtype)
        path = resolve_source(self.source, "backbone", download_model)
        try:
            with no_progress_bars(), only_errors():
                model: Any = load_whole(MusicgenForConditionalGeneration, path, dtype=dtype)
                self.tokenizer: Any = AutoTokenizer.from_pretrained(path)
        except LOADING_ERRORS as error:
            raise InputError(f"backbone: {self.name} cannot be loaded as MusicGen: {first_line(error)}") from error
        if model.config.decoder.audio_channels != 1:
            raise InputError(
                f"backbone: {self.name} is a stereo MusicGen; give a mono one, as facebook/musicgen-small."
            )
        self.edit_defaults = stored_defaults(path)
        self._set_model(frozen(model))

    def _set_model(self, model: Any) -> None:
        self.model = model
        model.decoder.set_attn_implementation(NAME)
        self.pad, codec = model.config.decoder.pad_token_id, model.audio_encoder.config
        self.sample_rate, self.hop_samples = codec.sampling_rate, codec.hop_length
        self.window_frames = round(self.wanted_seconds * self.sample_rate / self.hop_samples)
        self._layers = adaptable_layers(model)
        self.tokenizer.model_max_length = min(self.tokenizer.model_max_length, 512)  # some folders name none
        self._prompt_encoder = PromptEncoder(self._encode_prompts, {"T5": self.tokenizer})
        self.eval()

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where the decoder is."""
        return self.model.decoder.device

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Precision of the decoder."""
        return self.model.decoder.dtype

    @property
    def codebooks(self) -> int:
        """Codes of one frame."""
        return self.model.decoder.num_codebooks

    def adapted_layers(self) -> dict[str, AttentionLayer]:
        """The text cross-attention of every decoder layer."""
        return self._layers

    def encoders(self) -> dict[str, nn.Module]:
        """EnCodec, and what encodes prompts."""
        parts = ("audio_encoder", "text_encoder", "enc_to_dec_proj")
        return {part: getattr(self.model, part) for part in parts if hasattr(self.model, part)}

    def identity(self) -> dict[str, Any]:
        """The window, which decides where a longer edit is continued."""
        return {"window_seconds": self.wanted_seconds}

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the decoder layers in the backward pass. Transformers' own checkpointing needs train mode."""
        for layer in self.model.decoder.model.decoder.layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)

    def compile_blocks(self) -> None:
        """Compile the decoder layers."""
        for layer in self.model.decoder.model.decoder.layers:
            layer.compile()

    # --- text ---------------------------------------------------------------------------------------------------------

    def encode_text(self, prompts: Sequence[str]) -> TextStates:
        """T5's states of ``prompts`` as the decoder reads them; an empty prompt is one state of zeros.

        Raises:
            InputError: If a prompt is not a string.
        """
        # MusicGen was trained with zeros for no text; a mask of nothing else would leave a softmax over nothing.
        return TextStates.stack(
            [
                (states, mask) if prompt else (torch.zeros_like(states[:1]), torch.ones_like(mask[:1]))
                for prompt, (states, mask) in zip(prompts, self._prompt_encoder(prompts, self.device), strict=True)
            ]
        )

    def _encode_prompts(self, prompts: list[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """T5's states, projected, and their mask, of prompts of as many tokens."""
        read = self.tokenizer(prompts, padding=True, truncation=True, return_tensors="pt").to(device)
        states = self.model.text_encoder(read.input_ids, attention_mask=read.attention_mask).last_hidden_state
        return getattr(self.model, "enc_to_dec_proj", nn.Identity())(states), read.attention_mask

    # --- audio --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        """EnCodec's ``codes`` (B, K, T) of waveforms (B, S), in 16 bits; long ones are encoded in pieces that overlap."""
        frames = waveform.shape[-1] // self.hop_samples
        starts, size, overlap = self._pieces(frames)
        codes = torch.zeros(len(waveform), self.codebooks, frames, dtype=torch.int16, device=waveform.device)
        for start in starts:
            part = waveform[:, None, start * self.hop_samples : (start + size) * self.hop_samples]
            own = self.model.audio_encoder.encode(part.to(self.dtype)).audio_codes[0]
            skipped = overlap // 2 if start else 0
            codes[:, :, start + skipped : start + size] = own[:, :, skipped : frames - start]
        return {"codes": codes}

    def sampled(self, encoding: Mapping[str, Tensor], draw: torch.Generator | None = None) -> Tensor:
        """The codes (B, K, T)."""
        return encoding["codes"].long()

    @torch.no_grad()
    def decode(self, encoded: Tensor) -> Tensor:
        """Waveforms (B, T * hop_samples) of codes (B, K, T); silence from the first frame on that lacks a code."""
        known = ((encoded >= 0) & (encoded < self.model.config.audio_encoder.codebook_size)).all(dim=1)
        ends = [int(row.int().cumprod(dim=0).sum()) for row in known]
        sounds = [self._decoded(codes[None, :, :end]) for codes, end in zip(encoded, ends, strict=True)]
        return torch.cat([fit_length(sound, encoded.shape[-1] * self.hop_samples) for sound in sounds])

    def _decoded(self, codes: Tensor) -> Tensor:
        starts, size, _ = self._pieces(codes.shape[-1])
        length, hop = codes.shape[-1], self.hop_samples
        parts = [
            self.model.audio_encoder.decode(codes[None, :, :, start : start + size], [None]).audio_values.float()
            for start in starts
        ]
        sounds = torch.stack([fit_length(part, min(size, length) * hop) for part in parts])
        weights = window_weights(length, size, starts).repeat_interleave(hop, dim=1)
        return blend_windows(sounds, [start * hop for start in starts], weights, length * hop)[:, 0]

    def _pieces(self, frames: int) -> tuple[list[int], int, int]:
        """First frames of the pieces that EnCodec converts, their size, and their overlap."""
        size, overlap = (round(s * self.sample_rate / self.hop_samples) for s in (PIECE_SECONDS, OVERLAP_SECONDS))
        return window_starts(frames, size, overlap), size, overlap

    # --- training -----------------------------------------------------------------------------------------------------

    def logits(self, steps: Tensor, text: TextStates, cache: EncoderDecoderCache | None = None) -> Tensor:
        """Logits (B, K, n, V) of the codes of the steps after ``steps`` (B, K, n).

        Args:
            steps: Steps of a delayed sequence.
            text: For B prompts.
            cache: Holds the steps before; these are appended to it.
        """
        found = self.model.decoder(
            steps.flatten(0, 1),
            encoder_hidden_states=text.encoded.to(self.dtype),
            encoder_attention_mask=text.mask,
            use_cache=cache is not None,
            **({} if cache is None else {CACHE: cache}),
        )
        return found.logits.unflatten(0, (-1, self.codebooks))

    def read_audio(self, audio_tokens: Sequence[Tensor]) -> None:
        """Let the adapters read audio tokens (B, N, D), one tensor per adapter, for the following calls of :meth:`logits`."""
        for layer in self._layers.values():
            if layer.processor is not None:
                layer.processor.read(audio_tokens)

    def objective(self, loss_weighting: LossWeighting = "uniform", max_loss_weight: float = 250.0) -> Objective:
        """Mean cross-entropy of the codes.

        Raises:
            InputError: If a weighting by noise is asked for.
        """
        if loss_weighting != "uniform":
            raise InputError(
                f"loss_weighting: {loss_weighting} weights by noise, which MusicGen has not. Give uniform."
            )
        return self._losses

    def _losses(
        self, encoded: Tensor, text: Any, audio_tokens: Sequence[Tensor], draw: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        self.read_audio(audio_tokens)
        steps = delayed(encoded, self.pad)
        losses = cross_entropy(undelayed(self.logits(steps[:, :, :-1], text), start=1), encoded)
        return losses, torch.ones_like(losses)

    # --- editing ------------------------------------------------------------------------------------------------------

    def count_steps(self, settings: Any, frames: int) -> int:
        """Steps of all windows."""
        return sum(
            min(self.window_frames, frames) + self.codebooks - 1
            for _ in window_starts(frames, self.window_frames, self.window_frames // 4)
        )

    def _say_once(self, message: str) -> None:
        if message not in self._said:
            log.warning(message)
            self._said.add(message)

    def sampler(self, batch: EditBatch) -> Callable[[], Tensor]:
        """Window by window, each a continuation of what is known: the windows before, and what is kept of the recording."""
        codes = torch.full((len(batch.prompts), self.codebooks, batch.frames), UNKNOWN, device=self.device)
        if batch.kept is not None:
            self._say_once(
                "region, extend: MusicGen continues from what lies before a new part. It does not know what comes after it: the "
                "end is only cross-faded."
            )
            recorded = self.encode_audio(batch.waveform, lengths=batch.lengths)
            codes = torch.where(batch.kept.to(self.device)[:, None], recorded, codes)
        lengths = torch.tensor([-(-length // self.hop_samples) for length in batch.lengths])
        numbers = random_numbers(batch.seeds, self.codebooks, batch.frames)
        conditions = [batch.conditions(self, number) for number in range(len(batch.windows.starts))]

        def run() -> Tensor:
            for start, (text, audio) in zip(batch.windows.starts, conditions, strict=True):
                self.read_audio(audio)
                cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
                model: Model = partial(self.logits, text=text, cache=cache)
                if len(batch.guidance):
                    model = guided(model, batch.guidance)
                window = slice(start, start + self.window_frames)
                known, drawn = codes[:, :, window], numbers[:, :, window]
                knobs = batch.settings.temperature, batch.settings.top_k, batch.on_step
                codes[:, :, window] = continued(model, known, lengths - start, drawn, self.pad, *knobs)
            self.read_audio([])
            return codes

        return run
