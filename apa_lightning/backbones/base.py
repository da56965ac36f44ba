"""The interface of backbones: audio <-> latents or codes, text, adapted layers, an objective of training, a sampler of edits."""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from apa_lightning.adapters import attention
from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.adapters.base import Adapter, AdapterError, AttentionLayer
from apa_lightning.adapters.factory import adapter_for
from apa_lightning.adapters.files import EMBEDDED_ADAPTERS, AdapterFile, download, short_name
from apa_lightning.adapters.scale import Scale
from apa_lightning.backbones.edit_batch import EditBatch, Sampling
from apa_lightning.backbones.prompt_encoder import PromptEncoder
from apa_lightning.conditioning.base import AudioConditioner
from apa_lightning.diffusion.objectives import LossWeighting
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import EMBEDDED, resolve_source


class TextCondition(Protocol):
    """Encoded prompts of a batch, in whatever form the backbone's layers read them."""

    def cat(self, other: Self) -> Self:
        """Both batches in one, this one first."""


class Objective(Protocol):
    """What training minimizes."""

    def __call__(
        self, encoded: Tensor, text: Any, audio_tokens: Sequence[Tensor], draw: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The loss of each item (B,), and its weight in training (B,).

        Args:
            encoded: What the backbone is to generate, from :meth:`Backbone.sampled`.
            text: From :meth:`Backbone.encode_text`, for B prompts.
            audio_tokens: Pooled audio prompt (B, N, D), one tensor per installed adapter, as its :meth:`Adapter.project` gave it.
            draw: Generator of every random number.
        """


@dataclass(frozen=True)
class Clap:
    """The CLAP that a backbone reads prompts with: a model of transformers, and what belongs to it."""

    model: Any
    feature_extractor: Any
    tokenizer: Any


class Backbone(nn.Module, ABC):
    """A frozen text-to-music model. A further one is a subclass in a file of its own, named by ``class_path`` in YAML.

    One that denoises latents subclasses :class:`apa_lightning.backbones.diffusion.DiffusionBackbone`, which has the objective and
    the sampler. Heavy weights are loaded in :meth:`load_weights`, which the LightningModule calls in ``configure_model``.

    Attributes:
        kind: Written into adapter files; an adapter of another kind is refused by name.
        sampling: How it generates; knobs of an edit that belong to another way are refused by name.
        encoding_names: Names of the tensors of :meth:`encode`.
        layer_attention: Computes the output of an adapted layer.
        name: Where the weights come from; shown in adapter files and results.
        sample_rate: Hz of the waveforms that go in and come out.
        audio_channels: Their channels: 1, or 2 for stereo.
        hop_samples: Audio samples per frame of what it generates.
        window_frames: Frames of the window that an edit is made in.
        device: Where the weights are.
        dtype: Their precision.
        edit_defaults: Defaults of the knobs of an edit: values by knob, and under ``tasks`` the same by task; or a YAML file of
            such a mapping. What it lacks is as in the paper. See :mod:`apa_lightning.editing.defaults`.
    """

    kind: ClassVar[str]
    sampling: ClassVar[Sampling]
    encoding_names: ClassVar[tuple[str, ...]]
    layer_attention: ClassVar[type[attention.AdaptedAttention]] = attention.DecoupledAttention
    name: str
    sample_rate: int
    audio_channels: int = 1
    hop_samples: int
    window_frames: int
    device: torch.device
    dtype: torch.dtype
    edit_defaults: Mapping[str, Any] | Path | None = None
    _prompt_encoder: PromptEncoder | None = None

    # --- to be written for each backbone ------------------------------------------------------------------------------

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> TextCondition:
        """The condition of B prompts; an empty prompt means unconditional.

        Raises:
            InputError: If a prompt is not a string.
        """

    @abstractmethod
    def encode(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        """What the backbone's codec makes of waveforms, by :attr:`encoding_names`, with B as first axis.

        Args:
            waveform: Mono (B, S), or (B, 2, S) where :attr:`audio_channels` is 2, at :attr:`sample_rate`; may be longer than the window.
            lengths: Samples of each item that are not padding.
        """

    @abstractmethod
    def sampled(self, encoding: Mapping[str, Tensor], draw: torch.Generator | None = None) -> Tensor:
        r"""What is to be generated, of an :meth:`encode`\ d waveform: latents (B, C, T, ...) or codes (B, K, T).

        Args:
            encoding: The encoding.
            draw: Generator, where a part of it is random; ``None`` means the mean.
        """

    @abstractmethod
    def decode(self, encoded: Tensor) -> Tensor:
        """Waveforms (B, T * hop_samples), or (B, 2, T * hop_samples), of latents (B, C, T, ...) or codes (B, K, T)."""

    @abstractmethod
    def adapted_layers(self) -> dict[str, AttentionLayer]:
        """The cross-attention layers that get an adapter's K/V, by name."""

    @abstractmethod
    def objective(self, loss_weighting: LossWeighting = "uniform", max_loss_weight: float = 250.0) -> Objective:
        """What training minimizes, with the weights of its losses."""

    @abstractmethod
    def sampler(self, batch: EditBatch) -> Callable[[], Tensor]:
        """Encode what a batch of edits needs, and return the function that generates what :meth:`decode` takes."""

    @abstractmethod
    def count_steps(self, settings: Any, frames: int) -> int:
        """How far :attr:`EditBatch.on_step` counts in an edit of so many frames."""

    # --- defaults that a backbone may replace -------------------------------------------------------------------------

    def check_settings(self, settings: Any) -> None:
        """Raise :class:`InputError` for knobs of an edit (EditSettings) that do not suit the backbone."""

    def load_weights(self) -> None:
        """Load heavy weights; called once in each process before use. By default there is nothing to load."""

    def encoders(self) -> dict[str, nn.Module]:
        """The modules that decide :meth:`encode` and :meth:`encode_text`, by name; by default all of the backbone.

        Cached encodings are made again when their weights change.
        """
        return {"backbone": self}

    def clap(self) -> Clap | None:
        """The CLAP that prompts are read with, to score edits by; ``None`` where the backbone has none."""
        return None

    def lost_text(self, prompt: str) -> dict[str, str]:
        """The end of ``prompt`` that is behind a text encoder's limit, by the encoder's name; nothing is cut without a :class:`PromptEncoder`."""
        return self._prompt_encoder.lost_text(prompt) if self._prompt_encoder else {}

    def placed(self, text: Any, places: Sequence[tuple[float, float]]) -> Any:
        """Tell a text condition where in its recording each of B windows lies; by default the model does not read that.

        Args:
            text: From :meth:`encode_text`.
            places: For each window its start and the length of the whole recording, in seconds.
        """
        return text

    def conventions(self) -> dict[str, str]:
        """Settings that an adapter must be used with as it was trained; kept in adapter files and checkpoints."""
        return {}

    def identity(self) -> dict[str, Any]:
        """What decides the sound of an edit besides weights and settings, for the key of a finished edit."""
        return {}

    def compile_blocks(self) -> None:
        """Compile the repeated blocks of the model; by default nothing is compiled."""

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass."""
        raise InputError(f"gradient_checkpointing: {type(self).__name__} does not offer it; leave it out.")

    # --- shared by all backbones --------------------------------------------------------------------------------------

    @property
    def window_samples(self) -> int:
        """Audio samples of one window."""
        return self.window_frames * self.hop_samples

    @property
    def window_seconds(self) -> float:
        """Seconds of one window (10.24 for AudioLDM2-large)."""
        return self.window_samples / self.sample_rate

    def train(self, mode: bool = True) -> Self:
        """The backbone is always in eval mode."""
        return super().train(False)

    def encode_audio(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """Latents (B, C, T, ...) or codes (B, K, T) of waveforms (B, S), without random draws."""
        return self.sampled(self.encode(waveform, lengths))

    def new_adapter(self, source: str | os.PathLike | Adapter | None = None) -> Adapter:
        """An adapter for this backbone.

        Args:
            source: An adapter file, which names its variant; a folder or hub id with one; ``embedded`` or ``embedded:timbre``,
                adapters of the embedded backbone; an adapter object without weights, which may name a file to start from; or
                ``None`` for an untrained :class:`AudioPromptAdapter`.

        Raises:
            FileNotFoundError, InputError: See :func:`resolve_source` and :meth:`Adapter.load`.
        """
        given = source.start_from if isinstance(source, Adapter) else source
        part = EMBEDDED_ADAPTERS.get(str(given), "")
        file: Any = None if given is None else resolve_source(EMBEDDED if part else given, "adapter", download, part)
        adapter: Adapter
        if isinstance(source, Adapter):
            adapter = source
        elif file is None:
            adapter = AudioPromptAdapter()
        else:
            file = AdapterFile.read(file)
            adapter = adapter_for(file)
        adapter.initialize(self.adapted_layers(), self.kind)
        adapter.metadata = self.conventions() | adapter.metadata
        if given is None:
            adapter.name = adapter.name or "untrained"
            return adapter
        adapter.name = short_name(given)
        try:
            return adapter.load(file)
        except AdapterError as error:
            if self.name == EMBEDDED or not part:
                raise
            raise AdapterError(
                f"adapter: '{given}' was trained on the embedded backbone, whose weights differ from those of {self.name}. "
                "Give the file of an adapter that was trained on it, or null for an untrained one."
            ) from error

    def install(self, adapters: Sequence[Adapter]) -> None:
        """Put ``adapters`` into the adapted layers, each with scale 1, in place of those before; an empty list removes all."""
        attention.install(self.adapted_layers(), adapters, self.layer_attention)

    def set_scale(self, scales: Scale | Sequence[Scale]) -> None:
        """Set alpha (``ap_scale``) of the installed adapters, see :func:`apa_lightning.adapters.attention.set_scale`."""
        attention.set_scale(self.adapted_layers(), scales)

    def applied(self, adapters: Sequence[Adapter], scales: Scale | Sequence[Scale]) -> AbstractContextManager[None]:
        """Install ``adapters`` with ``scales`` for a block, see :func:`apa_lightning.adapters.attention.applied`."""
        return attention.applied(self.adapted_layers(), adapters, scales, self.layer_attention)

    def fit_conditioner(self, encoder: AudioConditioner) -> AudioConditioner:
        """The audio encoder as this backbone uses it: by default itself, if it encodes the whole window.

        Raises:
            InputError: If its tokens have other channels than the adapted layers read, or its window is too short.
        """
        width = read_width(self.adapted_layers())
        if encoder.embed_dim != width:
            raise InputError(
                f"audio_encoder: its tokens have {encoder.embed_dim} channels, the backbone's adapted layers read {width}. "
                "Give the audio encoder that belongs to the backbone."
            )
        if encoder.window_seconds < self.window_seconds - 0.05:
            raise InputError(
                f"audio_encoder: encodes {encoder.window_seconds:.2f} s, the backbone's window has {self.window_seconds:.2f} s. "
                "Give the audio encoder that belongs to the backbone."
            )
        return encoder


def read_width(layers: Mapping[str, AttentionLayer]) -> int:
    """Channels of the tokens that adapted layers read."""
    return next(iter(layers.values())).to_k.in_features
