"""Training the pocket backbone's vocoder: from log-mels back to sound, by multi-resolution STFT losses.

HiFi-GAN's generator (Kong et al., arXiv 2010.05646) without its discriminators, which would take most of the time of a
short training: the STFT losses alone, as Parallel WaveGAN's generator begins with (Yamamoto et al., arXiv 1910.11480).
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import SpeechT5HifiGan

from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.backbones.architectures import POCKET, Sizes
from apa_lightning.errors import InputError
from apa_lightning.metrics import chroma, chroma_cosine, unmeasurable
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.parts.part import PocketPart, save_half
from apa_lightning.utils.pretrained import no_progress_bars
from apa_lightning.utils.rng import generator_for, randn

PEAK = 0.5
"""The peak of every clip, as the VAE expects it."""

FLOOR = 1e-4 * PEAK
"""Magnitude 80 dB below a clip's peak: what lies lower is not heard beside it, and its logarithm must not count."""


MEL_MEAN, MEL_SCALE = -5.0, 2.6
"""Mean and standard deviation of the log-mels of rendered music."""


def power_spectrum(waveform: Tensor, n_fft: int) -> Tensor:
    """Squared STFT magnitudes (B, N, n_fft // 2 + 1) of a waveform (B, S); a sine of amplitude a reaches a ** 2.

    Hann window, a quarter of ``n_fft`` between frames, which all lie within the waveform.
    """
    window = torch.hann_window(n_fft, dtype=torch.float32, device=waveform.device)
    bins = torch.fft.rfft(waveform.float().unfold(-1, n_fft, n_fft // 4) * (window * (2 / window.sum())))
    return bins.real.square() + bins.imag.square()


def convergence(power: Tensor, wanted: Tensor) -> Tensor:
    """Spectral convergence of power spectra (B, N, K): ``|| |X| - |Y| || / || |Y| ||`` of each item, (B,)."""
    return (power.sqrt() - wanted.sqrt()).flatten(1).norm(dim=1) / wanted.flatten(1).sum(dim=1).sqrt()


def log_distance(power: Tensor, wanted: Tensor, norm: int = 1) -> Tensor:
    """Distance of the logarithms of power spectra (B, N, K): (B,), in nepers.

    Args:
        norm: 1: mean of ``| ln |X| - ln |Y| |``; 2: its root mean square over bins, averaged over frames, which is the
            log-spectral distance.
    """
    difference = 0.5 * (power.log() - wanted.log())
    if norm == 1:
        return difference.abs().flatten(1).mean(dim=1)
    return (difference.square().mean(dim=2) + 1e-12).sqrt().mean(dim=1)  # the root has no slope at 0


def stft_loss(
    made: Tensor, true: Tensor, fft_sizes: Sequence[int], weight: float = 1.0, log_norm: Literal[1, 2] = 1
) -> Tensor:
    """Multi-resolution STFT loss of waveforms (B, S), blind to phase: mean over items and FFT sizes.

    Args:
        made, true: what was generated, and what it should sound like, with a peak of about :data:`PEAK`.
        fft_sizes: in samples.
        weight: of the spectral convergence beside the logarithms. A convergence above 4 counts as 4, lest one nearly
            silent segment outweighs the batch.
        log_norm: of :func:`log_distance`.
    """
    total = made.new_zeros(())
    for n_fft in fft_sizes:
        power, wanted = power_spectrum(made, n_fft) + FLOOR**2, power_spectrum(true, n_fft) + FLOOR**2
        total = (
            total + (weight * convergence(power, wanted).clamp(max=4.0) + log_distance(power, wanted, log_norm)).mean()
        )
    return total / len(fft_sizes)


def _audible(made: Tensor, true: Tensor, n_fft: int) -> tuple[Tensor, Tensor]:
    """Power spectra of waveforms (B, S), cut off 80 dB below the highest bin of each true one.

    Nobody hears what lies lower beside it, 16-bit recordings hold little there, and without a cut digital silence would be
    infinitely far from anything.
    """
    power, wanted = power_spectrum(made, n_fft), power_spectrum(true, n_fft)
    floor = (wanted.amax(dim=(1, 2), keepdim=True) * 1e-8).clamp(min=1e-20)
    return torch.maximum(power, floor), torch.maximum(wanted, floor)


def log_spectral_distance(made: Tensor, true: Tensor, n_fft: int = 1024) -> Tensor:
    """Log-spectral distance of waveforms (B, S) in dB: (B,), the mean over frames of the root mean square over bins.

    Magnitudes are cut off 80 dB below the true clip's highest.
    """
    power, wanted = _audible(made, true, n_fft)
    return (10 * (power.log10() - wanted.log10())).square().mean(dim=2).sqrt().mean(dim=1)


def multi_resolution_distance(made: Tensor, true: Tensor, fft_sizes: Sequence[int] = (2048, 1024, 512)) -> Tensor:
    """Mean over FFT sizes of spectral convergence plus mean ``| ln |X| - ln |Y| |``, of waveforms (B, S): (B,).

    Magnitudes are cut off 80 dB below the true clip's highest.
    """
    spectra = [_audible(made, true, n_fft) for n_fft in fft_sizes]
    return torch.stack([convergence(*pair) + log_distance(*pair) for pair in spectra]).mean(dim=0)


def vocode(vocoder: Any, mels: Tensor, hop_length: int = 160) -> Tensor:
    """Waveforms (B, T * hop_length) of log-mels (B, T, F); the class itself may return a few samples more."""
    return vocoder(mels)[:, : mels.shape[1] * hop_length]


def initialise(vocoder: Any, mean: float, scale: float) -> None:
    """Weights that let a signal of unit size through, for inputs of this mean and standard deviation.

    The class's own are meant for weight normalisation and are next to silent without it. The inputs' mean and deviation
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


class PocketVocoder(PocketPart):
    """Trains the vocoder to make sound of log-mels whose STFT is that of the clip they were taken from.

    A clip is decoded once and heard in several short segments, so that the time goes into the vocoder. Waveforms (B, S)
    are brought to a peak of 0.5 first.

    Args:
        sizes: of the vocoder, over those of :data:`apa_lightning.backbones.architectures.POCKET`; null: those.
        segment_frames: frames of 10 ms in a segment; it must hold the largest FFT.
        margin_frames: frames at each end of a segment that are heard and made, but not judged: the network could tell
            the place in a segment by its ends, and long clips have none.
        segments_per_clip: drawn from each clip of a batch, at random places.
        fft_sizes: resolutions of the loss, in samples. The large ones teach pitch, the small ones attacks.
        convergence: weight of the spectral convergence beside the logarithms.
        log_norm: 1: the logarithms' mean deviation counts; 2: its root mean square, the log-spectral distance itself, which
            ends nearer to the source once the rest is learned.
        mel_noise: standard deviation of Gaussian noise on the log-mels of every second segment; mels that come out of the
            VAE are not as clean as those of recordings.
        start: a folder whose ``vocoder`` to go on from instead of random weights, such as one that was written before or
            ``apa_lightning/pocket/weights``; its sizes count then.
        options: of :class:`PocketPart`.

    Raises:
        InputError: a setting cannot be; ``start`` has no vocoder.
    """

    writes = ("vocoder",)

    def __init__(
        self,
        folder: Path = Path("runs/pocket/model"),
        sizes: Sizes | None = None,
        segment_frames: int = 48,
        margin_frames: int = 0,
        segments_per_clip: int = 4,
        fft_sizes: Sequence[int] = (2048, 1024, 512, 256, 128),
        convergence: float = 1.0,
        log_norm: Literal[1, 2] = 1,
        mel_noise: float = 0.0,
        start: Path | None = None,
        learning_rate: float = 2e-3,
        warmup_steps: int = 50,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.8, 0.99),
        seed: int = 0,
    ):
        super().__init__(folder, learning_rate, warmup_steps, weight_decay, betas, seed)
        self.spec = MelSpec()
        samples = segment_frames * self.spec.hop_length
        if not fft_sizes or min(fft_sizes) < 16:
            raise InputError(f"model.fft_sizes: {list(fft_sizes)}; give at least one size of 16 samples or more.")
        if samples < max(fft_sizes):
            raise InputError(
                f"model.segment_frames: {segment_frames} frames are {samples} samples, less than the largest of "
                f"model.fft_sizes, {max(fft_sizes)}. Give {math.ceil(max(fft_sizes) / self.spec.hop_length)} or more."
            )
        if margin_frames < 0:
            raise InputError(f"model.margin_frames: {margin_frames}; it must not be negative.")
        if segments_per_clip < 1:
            raise InputError(f"model.segments_per_clip: {segments_per_clip}; give at least 1.")
        if convergence < 0 or mel_noise < 0:
            raise InputError(
                f"model.convergence, model.mel_noise: {convergence}, {mel_noise}; neither may be negative. Give 0 for none."
            )
        self.segment_frames, self.margin_frames = segment_frames, margin_frames
        self.segments_per_clip = segments_per_clip
        self.fft_sizes, self.convergence, self.mel_noise = tuple(fft_sizes), convergence, mel_noise
        self.log_norm: Literal[1, 2] = log_norm
        if start is not None and sizes:
            raise InputError(
                "model.start, model.sizes: the sizes are those of the vocoder in model.start; give one of both."
            )
        if start is not None:
            require(Path(start), ("vocoder",))
            with no_progress_bars():
                self.vocoder = SpeechT5HifiGan.from_pretrained(Path(start) / "vocoder", dtype=torch.float32).train()
        else:
            architecture = dataclasses.replace(POCKET, vocoder={**POCKET.vocoder, **(sizes or {})})
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(generator_for(seed, "vocoder").initial_seed())
                self.vocoder = architecture.build_vocoder()
                initialise(self.vocoder, MEL_MEAN, MEL_SCALE)
        self.vocoder.apply_weight_norm()  # type: ignore[no-untyped-call]

    def forward(self, mels: Tensor) -> Tensor:
        """Waveforms (B, T * 160) of log-mels (B, T, F)."""
        return vocode(self.vocoder, mels, self.spec.hop_length)

    def segments(self, waveform: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mels (B * K, M + T + M, F) of random pieces of clips (B, S) with margins of M frames, and the pieces
        themselves (B * K, (M + T + M) * 160)."""
        mels, hop, draws = log_mel(waveform, self.spec)[:, 0], self.spec.hop_length, self.draws("segments")
        length = self.segment_frames + 2 * self.margin_frames
        last = mels.shape[1] - length
        if last < 0:
            raise InputError(
                f"data.audio_length_in_s: clips of {mels.shape[1]} frames are shorter than model.segment_frames and its "
                f"margins, {length}. Give longer clips."
            )
        starts = torch.randint(last + 1, (len(waveform), self.segments_per_clip), generator=draws).tolist()
        places = [(clip, start, start + length) for clip, row in enumerate(starts) for start in row]
        inputs = torch.stack([mels[clip, start:end] for clip, start, end in places])
        if self.mel_noise:
            noise = randn(tuple(inputs[::2].shape), draws, inputs)
            inputs[::2] += self.mel_noise * noise
        return inputs, torch.stack([waveform[clip, start * hop : end * hop] for clip, start, end in places])

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        mels, pieces = self.segments(normalize_level(batch["waveform"], PEAK, batch.get("num_samples")))
        margin = self.margin_frames * self.spec.hop_length
        judged = slice(margin, pieces.shape[1] - margin)
        loss = stft_loss(self(mels)[:, judged], pieces[:, judged], self.fft_sizes, self.convergence, self.log_norm)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(pieces))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Whole clips: the loss, the log-spectral distance, and of the first batch the chroma similarity and sounds."""
        clips = normalize_level(batch["waveform"], PEAK, batch.get("num_samples"))
        mels = log_mel(clips, self.spec)[:, 0]
        made = self(mels)
        clips = clips[:, : made.shape[1]]
        figures = {
            "val/loss": stft_loss(made, clips, self.fft_sizes, self.convergence, self.log_norm),
            "val/log_spectral_distance": log_spectral_distance(made, clips).mean(),
        }
        self.log_dict(figures, prog_bar=True, batch_size=len(clips), sync_dist=True)
        if batch_idx == 0 and self.trainer.is_global_zero:
            self._hear(made.float().cpu(), clips.float().cpu(), batch["key"])

    def _hear(self, made: Tensor, clips: Tensor, keys: Sequence[str]) -> None:
        rate = self.spec.sample_rate
        pairs = [pair for pair in zip(made[:8], clips[:8], strict=True) if not any(unmeasurable(w, rate) for w in pair)]
        if pairs:
            kept = sum(chroma_cosine(chroma(one, rate), chroma(other, rate)) for one, other in pairs) / len(pairs)
            self.log("val/chroma_similarity", kept, batch_size=len(pairs), rank_zero_only=True)
        writer: Any = getattr(self.logger, "experiment", None)
        if hasattr(writer, "add_audio"):
            for key, waveform in list(zip(keys, made, strict=True))[:3]:
                writer.add_audio(f"vocoder/{key}", waveform[None], self.global_step, rate)

    def write(self, folder: Path) -> None:
        plain = without_weight_norm(self.vocoder)
        plain.config.vocoder_choice = "refined"  # what this small vocoder is used as; AudioLDM2Backbone reads it
        save_half(plain, folder / "vocoder")


@torch.no_grad()
def without_weight_norm(vocoder: Any) -> Any:
    """A copy of a vocoder in training, with the plain weights that its weight normalisation stands for."""
    with torch.random.fork_rng(devices=[]):
        plain = type(vocoder)(vocoder.config)
    for name, layer in plain.named_modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            source = vocoder.get_submodule(name)
            layer.weight.copy_(source.weight)
            cast(Tensor, layer.bias).copy_(source.bias)
    return plain
