"""What an edit is judged by: how much of the recording is kept (chroma), how well the text is met (CLAP).

Both are torchmetrics that average one figure per clip and sum counts over processes. A clip that cannot be measured is
left out, counted in ``skipped`` and named in a warning; with no clip left the mean is NaN, never a made-up number.
"""

import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import librosa
import numpy as np
import torch
import transformers
from huggingface_hub import snapshot_download
from torch import Tensor
from torchmetrics import Metric

from apa_lightning.audio import resample
from apa_lightning.backbone import AudioLDM2Backbone
from apa_lightning.edit_request import MIN_SECONDS, SILENCE_PEAK
from apa_lightning.errors import InputError
from apa_lightning.sources import frozen, no_progress_bars, resolve_source

log = logging.getLogger(__name__)

CHROMA_RATE, CHROMA_BINS, CHROMA_HOP = 16_000, 12, 512
Waveforms = Tensor | Sequence[Tensor]


class ClipMean(Metric):
    """Mean of one figure per clip; subclasses add figures in ``update``.

    The state is three sums, so that processes with different numbers of clips agree; it stays out of checkpoints.

    Attributes:
        total: sum of the figures.
        clips: number of clips in ``total``.
        skipped: number of clips that could not be measured.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    total: Tensor
    clips: Tensor
    skipped: Tensor

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        for name, kind in (("total", torch.float64), ("clips", torch.long), ("skipped", torch.long)):
            self.add_state(name, torch.zeros((), dtype=kind), dist_reduce_fx="sum")

    def compute(self) -> Tensor:
        """The mean as a scalar, NaN without clips."""
        return (self.total / self.clips).float()

    def _add(self, clip: int, value: float) -> None:
        if math.isfinite(value):
            self.total += value
            self.clips += 1
        else:
            self._leave_out(clip, "figure is not finite")

    def _leave_out(self, clip: int, why: str) -> None:
        log.warning("%s: clip %d of the batch is left out: its %s.", type(self).__name__, clip, why)
        self.skipped += 1

    def _usable(self, clip: int, sample_rate: int, **waveforms: Tensor) -> bool:
        """Whether all ``waveforms`` (S,) can be measured; if not, it is counted and said why."""
        for name, waveform in waveforms.items():
            if why := unmeasurable(waveform, sample_rate):
                self._leave_out(clip, f"{name} {why}")
                return False
        return True


def unmeasurable(waveform: Tensor, sample_rate: int) -> str:
    """Why a waveform (S,) cannot be measured, as the end of a sentence; empty if it can."""
    if waveform.ndim != 1:
        raise InputError(f"waveform: has shape {tuple(waveform.shape)}; give mono clips (S,), or a batch of them (B, S).")
    if len(waveform) < MIN_SECONDS * sample_rate:
        return f"lasts {len(waveform) / sample_rate:.2f} s, less than {MIN_SECONDS} s"
    if not torch.isfinite(waveform).all():
        return "contains NaN or infinite samples"
    return "is digital silence" if float(waveform.abs().max()) < SILENCE_PEAK else ""


def _check_pairs(first: Sequence, second: Sequence, names: str) -> None:
    if len(first) != len(second):
        raise InputError(f"{names}: {len(first)} and {len(second)} items; give as many of both.")


# --- chroma ---------------------------------------------------------------------------------------------------------


def chroma(waveform: Tensor, sample_rate: int) -> np.ndarray:
    """Constant-Q chromagram (12, N) of a waveform (S,): librosa's, at 16 kHz, one frame per 32 ms."""
    samples = resample(waveform.detach().float().cpu(), sample_rate, CHROMA_RATE).numpy()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_fft=.* is too large")  # the lowest octaves of clips below 3 s
        warnings.filterwarnings("ignore", "Trying to estimate tuning from empty")  # noise has none: 0 is taken
        return librosa.feature.chroma_cqt(y=samples, sr=CHROMA_RATE, hop_length=CHROMA_HOP, n_chroma=CHROMA_BINS)


def chroma_cosine(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over frames of the cosine between two chromagrams (12, N) and (12, M); the longer one is cut.

    A frame without any energy in one of the two counts as 0; one without energy in both is left out.
    """
    frames = min(first.shape[1], second.shape[1])
    first, second = first[:, :frames].astype(np.float64), second[:, :frames].astype(np.float64)
    norms = np.linalg.norm(first, axis=0), np.linalg.norm(second, axis=0)
    heard = (norms[0] > 0) | (norms[1] > 0)
    product = norms[0] * norms[1]
    cosines = np.divide((first * second).sum(axis=0), product, out=np.zeros(frames), where=product > 0)
    return float(cosines[heard].mean()) if heard.any() else float("nan")


class ChromaSimilarity(ClipMean):
    """Framewise cosine similarity of constant-Q chroma with 12 bins, averaged over frames, then over clips.

    Definition: AP-Adapter (arXiv 2407.16564, Sec. 5), computed with librosa's ``chroma_cqt`` (7 octaves from C1, tuning
    estimated per clip). 1 is the same harmony and melody; *different* real recordings reach about 0.45 to 0.52, and a
    noisy edit more, so a figure is only readable beside its shuffled pairs.
    """

    def update(self, edited: Waveforms, source: Waveforms, sample_rate: int) -> None:
        """Add pairs of clips.

        Args:
            edited, source: (B, S), or B waveforms (S,) of any length.
            sample_rate: of both, in Hz.
        """
        _check_pairs(edited, source, "edited and source")
        for i, (one, other) in enumerate(zip(edited, source, strict=True)):
            if self._usable(i, sample_rate, edited=one, source=other):
                self._add(i, chroma_cosine(chroma(one, sample_rate), chroma(other, sample_rate)))


# --- CLAP -----------------------------------------------------------------------------------------------------------


class ClapEmbedder:
    """Unit-length audio and text embeddings of one CLAP.

    A plain object on purpose: a metric or module that holds it takes over neither its weights nor its state dict, and a
    copied metric shares it.

    Args:
        model: a ``ClapModel``; it is frozen and stays where it is.
        feature_extractor, tokenizer: those that belong to it.
        name: shown in reports.
    """

    def __init__(
        self, model: transformers.ClapModel, feature_extractor: transformers.ClapFeatureExtractor,
        tokenizer: transformers.PreTrainedTokenizerBase, name: str = "custom",
    ):
        self.model, self.feature_extractor, self.tokenizer, self.name = frozen(model), feature_extractor, tokenizer, name
        # What the weights need, whatever the extractor's own file says: other channels would not fit.
        self._truncation = "fusion" if model.config.audio_config.enable_fusion else "rand_trunc"

    @classmethod
    def of(cls, backbone: AudioLDM2Backbone) -> "ClapEmbedder":
        """The CLAP that ``backbone`` itself reads prompts with."""
        return cls(backbone.text_encoder, backbone.feature_extractor, backbone.pipeline.tokenizer, f"CLAP of {backbone.name}")

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, device: str | torch.device = "cpu") -> "ClapEmbedder":
        """Load a CLAP.

        Args:
            source: a CLAP folder or hub id (``laion/larger_clap_music``), an AudioLDM2 folder, or ``embedded``.
            device: where it runs.

        Raises:
            FileNotFoundError, InputError: no such source, no network for a hub id that is not cached, or no CLAP.
        """
        path = resolve_source(source, "clap", _download)
        parts = ("text_encoder", "feature_extractor", "tokenizer") if (path / "model_index.json").is_file() else ("", "", "")
        try:
            with no_progress_bars():
                model = transformers.ClapModel.from_pretrained(path, subfolder=parts[0])
                extractor = transformers.ClapFeatureExtractor.from_pretrained(path, subfolder=parts[1])
                tokenizer = transformers.AutoTokenizer.from_pretrained(path, subfolder=parts[2])
        except (OSError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise InputError(f"clap: {source} cannot be loaded as CLAP ({str(error).strip().splitlines()[0]}). Give a CLAP or "
                             "AudioLDM2 folder or hub id, or leave the setting out for the backbone's own CLAP.") from error
        return cls(model.to(device), extractor, tokenizer, str(source))

    def to(self, device: str | torch.device) -> "ClapEmbedder":
        """Move the CLAP; returns ``self``."""
        self.model.to(device)
        return self

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

        CLAP reads 10 s; a longer clip is covered by ``round(seconds / 10)`` evenly spaced windows whose embeddings are
        averaged (a single window is the middle), a shorter one is repeated, as in CLAP's training.
        """
        samples = resample(waveform.detach().float().cpu(), sample_rate, self.sample_rate).numpy()
        with _numpy_draws_undone():  # the extractor draws when it marks a clip as long
            inputs = self.feature_extractor(
                self._windows(samples), sampling_rate=self.sample_rate, truncation=self._truncation, return_tensors="pt"
            )
        features = inputs["input_features"].to(self.model.device, self.model.dtype)
        longer = torch.zeros(len(features), 1, dtype=torch.bool, device=features.device)  # no window is
        hidden = self.model.audio_model(input_features=features, is_longer=longer)
        return _unit(_unit(self.model.audio_projection(hidden.pooler_output)).mean(dim=0))

    def _windows(self, samples: np.ndarray) -> list[np.ndarray]:
        size = self.feature_extractor.nb_max_samples
        if len(samples) <= size:
            return [samples]
        count, spare = max(1, round(len(samples) / size)), len(samples) - size
        starts = [spare // 2] if count == 1 else np.linspace(0, spare, count).astype(int)
        return [samples[start : start + size] for start in starts]


def _unit(embedding: Tensor) -> Tensor:
    return torch.nn.functional.normalize(embedding.float().cpu(), dim=-1)


def _download(hub_id: str) -> str:
    """The CLAP of ``hub_id``, a repository of its own or part of an AudioLDM2, without the rest."""
    parts = [f"{part}/*" for part in ("text_encoder", "feature_extractor", "tokenizer")]
    names = ["*config.json", "model.safetensors", "pytorch_model.bin", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json"]
    return snapshot_download(hub_id, allow_patterns=["model_index.json", *parts, *names])


@contextmanager
def _numpy_draws_undone() -> Iterator[None]:
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


class ClapScore(ClipMean):
    """Cosine between the CLAP embedding of the audio and that of the text, averaged over clips.

    Definition: AP-Adapter (arXiv 2407.16564, Sec. 5); CLAP is LAION's (Wu et al., arXiv 2211.06687). Figures of different
    CLAPs cannot be compared, so reports name the one that was used (``clap.name``).

    Args:
        clap: the CLAP, or where to load one from; see :meth:`ClapEmbedder.from_pretrained`.
    """

    def __init__(self, clap: ClapEmbedder | str | os.PathLike, **kwargs):
        super().__init__(**kwargs)
        self.clap = clap if isinstance(clap, ClapEmbedder) else ClapEmbedder.from_pretrained(clap)

    def update(self, edited: Waveforms, prompts: Sequence[str], sample_rate: int) -> None:
        """Add clips and the texts that they should match.

        Args:
            edited: (B, S), or B waveforms (S,) of any length.
            prompts: B texts.
            sample_rate: in Hz.
        """
        _check_pairs(edited, prompts, "edited and prompts")
        for i, (waveform, prompt) in enumerate(zip(edited, prompts, strict=True)):
            if self._usable(i, sample_rate, edited=waveform):
                self._add(i, float(self.clap.audio(waveform, sample_rate) @ self.clap.text([prompt])[0]))
