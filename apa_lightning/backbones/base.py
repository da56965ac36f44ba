"""The interface of backbones: audio <-> latents, text, a prediction, adapted layers, an objective."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
from apa_lightning.adapters.files import AdapterFile, download, short_name
from apa_lightning.adapters.scale import Scale
from apa_lightning.conditioning.base import AudioConditioner
from apa_lightning.diffusion.objectives import LossWeighting, Model, Objective
from apa_lightning.diffusion.schedulers import make_scheduler
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import ADAPTER_FILE, EMBEDDED, resolve_source


class TextCondition(Protocol):
    """Encoded prompts of a batch, in whatever form the backbone's layers read them."""

    def cat(self, other: Self) -> Self:
        """Both batches in one, this one first."""


@dataclass(frozen=True)
class Clap:
    """The CLAP that a backbone reads prompts with: a model of transformers, and what belongs to it."""

    model: Any
    feature_extractor: Any
    tokenizer: Any


class Backbone(nn.Module, ABC):
    """A frozen text-to-music model. A further one is a subclass in a file of its own, named by ``class_path`` in YAML.

    Latents are (B, C, T, ...): time is the third axis, whatever follows belongs to the backbone. Heavy weights are loaded in
    :meth:`load_weights`, which the LightningModule calls in ``configure_model``.

    Attributes:
        kind: Written into adapter files; an adapter of another kind is refused by name.
        name: Where the weights come from; shown in adapter files and results.
        scheduler: A diffusers scheduler with the noise schedule that the model was trained on.
        sample_rate: Hz of the waveforms that go in and come out.
        channels: Their channels: 1, or 2 for stereo.
        layer_attention: Computes the output of an adapted layer.
        hop_samples: Audio samples per latent frame.
        window_frames: Latent frames of the window that the model was trained on.
        device: Where the weights are.
        dtype: Their precision.
        edit_defaults: Defaults of the knobs of an edit: values by knob, and under ``tasks`` the same by task; or a YAML file of
            such a mapping. What it lacks is as in the paper. See :mod:`apa_lightning.editing.defaults`.
    """

    kind: ClassVar[str]
    layer_attention: ClassVar[type[attention.AdaptedAttention]] = attention.DecoupledAttention
    name: str
    scheduler: Any
    sample_rate: int
    channels: int = 1
    hop_samples: int
    window_frames: int
    device: torch.device
    dtype: torch.dtype
    edit_defaults: Mapping[str, Any] | Path | None = None

    # --- to be written for each backbone ------------------------------------------------------------------------------

    @abstractmethod
    def latent_shape(self, frames: int | None = None) -> tuple[int, ...]:
        """(C, T, ...) of the latents of ``frames`` latent frames, by default of one window."""

    @abstractmethod
    def encode_text(self, prompts: Sequence[str]) -> TextCondition:
        """The condition of B prompts; an empty prompt means unconditional.

        Raises:
            InputError: If a prompt is not a string.
        """

    @abstractmethod
    def encode_moments(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (B, C, T, ...) of the latents of waveforms.

        Args:
            waveform: Mono (B, S), or (B, 2, S) where :attr:`channels` is 2, at :attr:`sample_rate`; may be longer than the window.
            lengths: Samples of each item that are not padding.
        """

    @abstractmethod
    def decode(self, latents: Tensor) -> Tensor:
        """Waveforms (B, T * hop_samples) of latents (B, C, T, ...); (B, 2, T * hop_samples) where :attr:`channels` is 2."""

    @abstractmethod
    def predict(self, latents: Tensor, times: Tensor, text: Any, audio_tokens: Sequence[Tensor] = ()) -> Tensor:
        """The model's output for one window: epsilon or v, as the scheduler's ``prediction_type`` says.

        Args:
            latents: Noisy latents (B, C, T, ...).
            times: Timesteps (B,), or one for all ().
            text: From :meth:`encode_text`, for B prompts.
            audio_tokens: Pooled audio prompt (B, N, D), one tensor per installed adapter, as its :meth:`Adapter.project` gave
                it; empty means text only.
        """

    def predictor(self, text: Any, audio_tokens: Sequence[Tensor] = ()) -> Model:
        """:meth:`predict` for many calls under the same conditions, those of one edit; a backbone may prepare them once.

        Args:
            text: See :meth:`predict`.
            audio_tokens: See :meth:`predict`. The adapters must stay installed from the first call to the last.
        """
        return lambda latents, time: self.predict(latents, time, text, audio_tokens)

    @abstractmethod
    def adapted_layers(self) -> dict[str, AttentionLayer]:
        """The cross-attention layers that get an adapter's K/V, by name."""

    @abstractmethod
    def objective(self, loss_weighting: LossWeighting = "uniform", max_loss_weight: float = 250.0) -> Objective:
        """What training minimizes, with the weights of its losses."""

    # --- defaults that a backbone may replace -------------------------------------------------------------------------

    def load_weights(self) -> None:
        """Load heavy weights; called once in each process before use. By default there is nothing to load."""

    def encoders(self) -> dict[str, nn.Module]:
        """The modules that decide :meth:`encode_moments` and :meth:`encode_text`, by name; by default all of the backbone.

        Cached encodings are made again when their weights change.
        """
        return {"backbone": self}

    def clap(self) -> Clap | None:
        """The CLAP that prompts are read with, to score edits by; ``None`` where the backbone has none."""
        return None

    def lost_text(self, prompt: str) -> dict[str, str]:
        """The end of ``prompt`` that is behind a text encoder's limit, by the encoder's name; by default nothing is cut."""
        return {}

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

    def encode_audio(
        self, waveform: Tensor, noise: Tensor | None = None, lengths: Sequence[int] | None = None
    ) -> Tensor:
        """Latents (B, C, T, ...) of waveforms (B, S): a posterior sample with standard normal ``noise``, or the mean."""
        mean, std = self.encode_moments(waveform, lengths)
        return mean if noise is None else mean + std * noise

    def make_scheduler(self, name: str, num_inference_steps: int | None = None) -> Any:
        """A fresh scheduler of class ``name``, see :func:`apa_lightning.diffusion.schedulers.make_scheduler`."""
        return make_scheduler(self.scheduler, name, num_inference_steps, self.device)

    def new_adapter(self, source: str | os.PathLike | Adapter | None = None) -> Adapter:
        """An adapter for this backbone.

        Args:
            source: An adapter file, which names its variant; a folder or hub id with one; ``embedded``, the adapter of the
                embedded backbone; an adapter object without weights, which may name a file to start from; or ``None`` for an
                untrained :class:`AudioPromptAdapter`.

        Raises:
            FileNotFoundError, InputError: See :func:`resolve_source` and :meth:`Adapter.load`.
        """
        given = source.start_from if isinstance(source, Adapter) else source
        file: Any = None if given is None else resolve_source(given, "adapter", download, part=ADAPTER_FILE)
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
            if self.name == EMBEDDED or str(given) != EMBEDDED:
                raise
            raise AdapterError(
                f"adapter: 'embedded' was trained on the embedded backbone, whose weights differ from those of {self.name}. "
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
