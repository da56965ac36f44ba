"""CLAP (Wu et al., arXiv 2211.06687): one space for audio and text, to judge edits in."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
import transformers
from huggingface_hub import snapshot_download
from torch import Tensor

from apa_lightning.audio import resample
from apa_lightning.backbones.base import Backbone
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import (
    EMBEDDED,
    LOADING_ERRORS,
    first_line,
    frozen,
    load_whole,
    no_progress_bars,
    resolve_source,
)

log = logging.getLogger(__name__)

#: Where an AudioLDM2 folder keeps its CLAP: model, feature extractor, tokenizer.
PIPELINE_PARTS = ("text_encoder", "feature_extractor", "tokenizer")
BATCH = 8  # windows at a time


class ClapEmbedder:
    """Unit-length audio and text embeddings of one CLAP.

    A plain object on purpose: a metric or module that holds it takes over neither its weights nor its state dict, and a
    copied metric shares it.

    Args:
        model: The CLAP; it is frozen and stays on its device. One trained with fusion reads every window as a short clip.
        feature_extractor: The feature extractor that belongs to it.
        tokenizer: The tokenizer that belongs to it.
        name: Name of the CLAP in reports.
    """

    def __init__(
        self,
        model: transformers.ClapModel,
        feature_extractor: transformers.ClapFeatureExtractor,
        tokenizer: transformers.PreTrainedTokenizerBase,
        name: str = "custom",
    ):
        self.model, self.name = frozen(model), name
        self._prompt = lru_cache(maxsize=1024)(lambda text: self.text([text])[0])
        self.feature_extractor, self.tokenizer = feature_extractor, tokenizer
        # What the weights need, whatever the extractor's own file says: other channels would not fit.
        self._truncation = "fusion" if getattr(model.config.audio_config, "enable_fusion", False) else "rand_trunc"

    @classmethod
    def of(cls, backbone: Backbone) -> "ClapEmbedder":
        """The CLAP that ``backbone`` itself reads prompts with; the embedded one where it has none."""
        clap = backbone.clap()
        if clap is None:
            log.warning("clap: %s holds no CLAP, so the embedded one scores; `clap` names another.", backbone.name)
            return cls.from_pretrained(EMBEDDED, backbone.device)
        return cls(clap.model, clap.feature_extractor, clap.tokenizer, f"CLAP of {backbone.name}")

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, device: str | torch.device = "cpu") -> "ClapEmbedder":
        """Load a CLAP.

        Args:
            source: A CLAP folder or hub id (``laion/larger_clap_music``), an AudioLDM2 folder, or ``embedded``.
            device: Device of the model.

        Raises:
            FileNotFoundError: If there is no such source.
            InputError: If the source is not a CLAP, or a hub id is not cached and the hub cannot be read.
        """
        path = resolve_source(source, "clap", _download)
        parts = PIPELINE_PARTS if (path / "model_index.json").is_file() else ("", "", "")
        try:
            with no_progress_bars():
                model = load_whole(transformers.ClapModel, path, parts[0], dtype=torch.float32)
                extractor = transformers.ClapFeatureExtractor.from_pretrained(path, subfolder=parts[1])
                # By default it asks at the terminal whether to run a stranger's code, and waits for an answer.
                tokenizer = transformers.AutoTokenizer.from_pretrained(
                    path, subfolder=parts[2], trust_remote_code=False
                )
        except LOADING_ERRORS as error:
            raise InputError(
                f"clap: {source} cannot be loaded as CLAP ({first_line(error)}). Give a CLAP or "
                "AudioLDM2 folder or hub id, or leave the setting out for the backbone's own CLAP."
            ) from error
        return cls(model, extractor, tokenizer, str(source)).to(device)

    def to(self, device: str | torch.device) -> "ClapEmbedder":
        """Move the CLAP; returns ``self``."""
        self.model.to(device)  # type: ignore[arg-type]  # transformers' wrapper hides the signature
        return self

    def prompt(self, text: str) -> Tensor:
        """Embedding (D,) of one text, on the CPU; the embeddings of the last 1,024 texts are kept."""
        return self._prompt(text)

    def __deepcopy__(self, memo: dict) -> "ClapEmbedder":
        return self

    @property
    def sample_rate(self) -> int:
        """Hz that the audio branch reads (48,000); everything is resampled to it."""
        return self.feature_extractor.sampling_rate

    @torch.no_grad()
    def text(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings (B, D) of B texts, on the CPU."""
        tokens = self.tokenizer(list(prompts), padding=True, truncation=True, return_tensors="pt").to(self.model.device)
        hidden = self.model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        return _unit(self.model.text_projection(hidden.pooler_output))

    @torch.no_grad()
    def audio(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Embedding (D,) of one waveform (S,), on the CPU.

        CLAP reads one window (LAION's 10 s); a longer clip is covered by ``round(seconds / window)`` evenly spaced ones
        whose embeddings are averaged (a single window is the middle), a shorter one is repeated, as in CLAP's training.
        """
        return _unit(self._embed(self._spread(self._samples(waveform, sample_rate))).mean(dim=0))

    @torch.no_grad()
    def audio_windows(self, waveform: Tensor, sample_rate: int, hop_s: float = 1.0) -> Tensor:
        """Embeddings (N, D) of the windows of one waveform (S,) that start every ``hop_s`` seconds, on the CPU.

        Only whole windows count; a clip that is no longer than one gives one.
        """
        samples, size = self._samples(waveform, sample_rate), self.feature_extractor.nb_max_samples
        starts = range(0, max(len(samples) - size, 0) + 1, round(hop_s * self.sample_rate))
        windows = [samples[start : start + size] for start in starts]
        return torch.cat([self._embed(windows[i : i + BATCH]) for i in range(0, len(windows), BATCH)])

    @torch.no_grad()
    def stages(self, waveform: Tensor, sample_rate: int) -> list[Tensor]:
        """What each stage of the audio transformer (HTSAT) puts out for one waveform (S,), on the CPU.

        Returns:
            One (W, C, H, V) per stage: the windows of :meth:`audio`, channels, and positions in the folded spectrogram.
        """
        features = self._features(self._spread(self._samples(waveform, sample_rate)))
        hidden = self.model.audio_model(**features, output_hidden_states=True).hidden_states
        return [stage.float().cpu() for stage in hidden[1:]]  # the first is the patch embedding

    def _samples(self, waveform: Tensor, sample_rate: int) -> np.ndarray:
        return resample(waveform.detach().float().cpu(), sample_rate, self.sample_rate).numpy()

    def _embed(self, windows: list[np.ndarray]) -> Tensor:
        pooled = self.model.audio_model(**self._features(windows)).pooler_output
        return _unit(self.model.audio_projection(pooled))

    def _features(self, windows: list[np.ndarray]) -> dict[str, Tensor]:
        with _numpy_draws_undone():  # the extractor draws when it marks a clip as long
            inputs = self.feature_extractor(
                windows, sampling_rate=self.sample_rate, truncation=self._truncation, return_tensors="pt"
            )
        features = inputs["input_features"].to(self.model.device, self.model.dtype)
        longer = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)  # no window is
        return {"input_features": features, "is_longer": longer}

    def _spread(self, samples: np.ndarray) -> list[np.ndarray]:
        size = self.feature_extractor.nb_max_samples
        if len(samples) <= size:
            return [samples]
        count, spare = max(1, round(len(samples) / size)), len(samples) - size
        starts = [spare // 2] if count == 1 else np.linspace(0, spare, count).astype(int)
        return [samples[start : start + size] for start in starts]


def clap_of(clap: ClapEmbedder | str | os.PathLike) -> ClapEmbedder:
    """``clap`` itself, or the one that it names; see :meth:`ClapEmbedder.from_pretrained`."""
    return clap if isinstance(clap, ClapEmbedder) else ClapEmbedder.from_pretrained(clap)


def _unit(embedding: Tensor) -> Tensor:
    return torch.nn.functional.normalize(embedding.float().cpu(), dim=-1)


def _download(hub_id: str) -> str:
    """The CLAP of ``hub_id``, a repository of its own or part of an AudioLDM2, without the rest."""
    weights = ["model.safetensors", "pytorch_model.bin", *(f"{part}/*" for part in PIPELINE_PARTS)]
    return snapshot_download(hub_id, allow_patterns=[*weights, "*.json", "*.txt"])


@contextmanager
def _numpy_draws_undone() -> Iterator[None]:
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
