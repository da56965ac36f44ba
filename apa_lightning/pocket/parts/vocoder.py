"""Training the pocket backbone's vocoder: from log-mels back to waveforms, by multi-resolution STFT losses.

HiFi-GAN's generator (Kong et al., arXiv 2010.05646) without its discriminators, which would take most of the time of a
short training: the STFT losses alone, as in the first phase of Parallel WaveGAN (Yamamoto et al., arXiv 1910.11480).
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.backbones.architectures import POCKET, Sizes
from apa_lightning.errors import InputError
from apa_lightning.metrics import Clip, chroma_similarity
from apa_lightning.pocket.assembly import load_part, save_half
from apa_lightning.pocket.parts.part import FOLDER, PocketPart, check, not_negative
from apa_lightning.pocket.stft_loss import PEAK, log_spectral_distance, stft_loss
from apa_lightning.utils.rng import generator_for, randn, seeded

MEL_MEAN, MEL_SCALE = -5.0, 2.6
"""Mean and standard deviation of the log-mels of rendered music."""


class PocketVocoder(PocketPart):
    """Trains the vocoder so that the STFT of its waveform is that of the clip from which the log-mel was taken.

    Each clip is decoded once and used in several short segments, so that the time goes into the vocoder. Waveforms (B, S)
    are first brought to a peak of 0.5.

    Args:
        folder: Folder of the pocket backbone.
        sizes: Sizes that replace those of :data:`apa_lightning.backbones.architectures.POCKET`; null: none.
        segment_frames: Frames of 10 ms in a segment; it must hold the largest FFT.
        segments_per_clip: Segments drawn from each clip of a batch, at random places.
        fft_sizes: Resolutions of the loss, in samples. The large ones teach pitch, the small ones attacks.
        convergence: Weight of the spectral convergence next to the logarithms.
        log_norm: 1: the mean deviation of the logarithms counts; 2: its root mean square, the log-spectral distance itself,
            which ends nearer to the source once the rest is learned.
        mel_noise: Standard deviation of Gaussian noise on the log-mels of every second segment; mels that come out of the
            VAE are not as clean as those of recordings.
        start: Folder whose ``vocoder`` replaces random weights, for example one that was written before or
            ``apa_lightning/pocket/weights``; its sizes count then.
        **schedule: Settings of :class:`PocketPart`.
    """

    writes = ("vocoder",)

    def __init__(
        self,
        folder: Path = FOLDER,
        sizes: Sizes | None = None,
        segment_frames: int = 48,
        segments_per_clip: int = 4,
        fft_sizes: Sequence[int] = (2048, 1024, 512, 256, 128),
        convergence: float = 1.0,
        log_norm: Literal[1, 2] = 1,
        mel_noise: float = 0.0,
        start: Path | None = None,
        **schedule: Any,
    ):
        super().__init__(folder, **schedule)
        self.spec = MelSpec()
        hop, rule = self.spec.hop_length, "give at least one size of 16 samples or more."
        self.fft_sizes = check("fft_sizes", list(fft_sizes), len(fft_sizes) > 0 and min(fft_sizes) >= 16, rule)
        if segment_frames * hop < max(fft_sizes):
            raise InputError(
                f"model.segment_frames: {segment_frames} frames are {segment_frames * hop} samples, less than the largest "
                f"of model.fft_sizes, {max(fft_sizes)}. Give {math.ceil(max(fft_sizes) / hop)} or more."
            )
        self.segment_frames, rule = segment_frames, "give at least 1."
        self.segments_per_clip = check("segments_per_clip", segments_per_clip, segments_per_clip >= 1, rule)
        self.convergence = not_negative("convergence", convergence)
        self.mel_noise = not_negative("mel_noise", mel_noise)
        self.log_norm: Literal[1, 2] = log_norm
        if start is not None:
            rule = "the sizes are those of the vocoder in model.start; give one of both."
            check("start, model.sizes", start, not sizes, rule)
            self.vocoder = load_part(Path(start), "vocoder").train()
        else:
            architecture = dataclasses.replace(POCKET, vocoder={**POCKET.vocoder, **(sizes or {})})
            with seeded(generator_for(self.seed, "vocoder").initial_seed()):
                self.vocoder = architecture.build_vocoder()
                initialize(self.vocoder, MEL_MEAN, MEL_SCALE)
        self.vocoder.apply_weight_norm()

    def forward(self, mels: Tensor) -> Tensor:
        """Waveforms (B, T * 160) of log-mels (B, T, F)."""
        return vocode(self.vocoder, mels, self.spec.hop_length)

    def segments(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mels (B * K, T, F) of random pieces of clips (B, S), K of each, and the pieces (B * K, T * 160)."""
        mels, hop, draws = log_mel(waveform, self.spec)[:, 0], self.spec.hop_length, self.draws("segments")
        length = self.segment_frames
        last = mels.shape[1] - length
        if last < 0:
            raise InputError(
                f"data.audio_length_in_s: clips of {mels.shape[1]} frames are shorter than model.segment_frames, {length}. "
                "Give longer clips."
            )
        starts = torch.randint(last + 1, (len(waveform), self.segments_per_clip), generator=draws).tolist()
        places = [(clip, start, start + length) for clip, row in enumerate(starts) for start in row]
        inputs = torch.stack([mels[clip, start:end] for clip, start, end in places])
        if self.mel_noise:
            inputs[::2] += self.mel_noise * randn(tuple(inputs[::2].shape), draws, inputs)
        return inputs, torch.stack([waveform[clip, start * hop : end * hop] for clip, start, end in places])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        mels, pieces = self.segments(normalize_level(batch["waveform"], PEAK, batch.get("num_samples")))
        loss = stft_loss(self(mels), pieces, self.fft_sizes, self.convergence, self.log_norm)
        self.log_scores("train", {"loss": loss}, len(pieces))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Log the loss and log-spectral distance of whole clips; chroma similarity and audio of the first batch."""
        clips = normalize_level(batch["waveform"], PEAK, batch.get("num_samples"))
        mels = log_mel(clips, self.spec)[:, 0]
        made = self(mels)
        clips = clips[:, : made.shape[1]]
        scores = {
            "loss": stft_loss(made, clips, self.fft_sizes, self.convergence, self.log_norm),
            "log_spectral_distance": log_spectral_distance(made, clips).mean(),
        }
        self.log_scores("val", scores, len(clips), bar="log_spectral_distance")
        if batch_idx == 0 and self.trainer.is_global_zero:
            self._log_audio(made.float().cpu(), clips.float().cpu(), batch["key"])

    def _log_audio(self, made: Tensor, clips: Tensor, keys: Sequence[str]) -> None:
        rate = self.spec.sample_rate
        pairs = [[Clip(waveform, rate) for waveform in pair] for pair in zip(made[:8], clips[:8], strict=True)]
        pairs = [pair for pair in pairs if not any(clip.problem for clip in pair)]
        if pairs:
            kept = sum(chroma_similarity(*pair) for pair in pairs) / len(pairs)
            self.log("val/chroma_similarity", kept, batch_size=len(pairs), rank_zero_only=True)
        writer: Any = getattr(self.logger, "experiment", None)
        if hasattr(writer, "add_audio"):
            for key, waveform in list(zip(keys, made, strict=True))[:3]:
                writer.add_audio(f"vocoder/{key}", waveform[None], self.global_step, rate)

    def write(self, folder: Path) -> None:
        plain = without_weight_norm(self.vocoder)
        plain.config.vocoder_choice = "refined"  # the default use of this small vocoder; AudioLDM2Backbone reads it
        save_half(plain, folder / "vocoder")


@torch.no_grad()
def without_weight_norm(vocoder: Any) -> Any:
    """A copy of a vocoder in training, with the plain weights that its weight normalization stands for."""
    with seeded(0):
        plain = type(vocoder)(vocoder.config)
    for name, layer in plain.named_modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            source = vocoder.get_submodule(name)
            layer.weight.copy_(source.weight)
            cast(Tensor, layer.bias).copy_(source.bias)
    return plain


def vocode(vocoder: Any, mels: Tensor, hop_length: int = 160) -> Tensor:
    """Waveforms (B, T * hop_length) of log-mels (B, T, F); the class itself may return a few samples more."""
    return vocoder(mels)[:, : mels.shape[1] * hop_length]


def initialize(vocoder: Any, mean: float, scale: float) -> None:
    """Set weights that let a signal of unit size through, for inputs of this mean and standard deviation.

    The class's own are meant for weight normalization and are next to silent without it. The inputs' mean and deviation
    are folded into the first layer, since the published vocoder has ``normalize_before: false``.
    """
    for layer in vocoder.modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            fan = layer.in_channels * layer.kernel_size[0] / layer.stride[0] ** isinstance(layer, nn.ConvTranspose1d)
            nn.init.normal_(layer.weight, std=1.3 / math.sqrt(fan))
            nn.init.zeros_(cast(Tensor, layer.bias))
    for block in vocoder.resblocks:
        for layer in block.convs2:
            layer.weight.data *= 0.3
    vocoder.conv_post.weight.data *= 0.2
    first = vocoder.conv_pre
    first.weight.data /= scale
    first.bias.data -= mean * first.weight.data.sum(dim=(1, 2))
