"""Peer: the training loop as published code of this family works, written from its description.

The data set keeps paths of audio files. Each use of a clip reads its file, builds a new STFT object with its mel filters, and
computes mel and filter bank; collating runs the audio encoder clip by clip; the step encodes the prompts and the mel again, and
calls the same U-Net with the same adapter. Parts, batch, optimizer and precision are those of our own loop.
"""

import apa_lightning  # noqa: F401  before torch, as on the command line: it sets the spins of torch's threads

# isort: split
from pathlib import Path

import librosa
import soundfile
import torch
import torchaudio
from serve import clock, device, serve, settings
from torch.utils.data import DataLoader, Dataset

from apa_lightning.backbones.factory import load_backbone
from apa_lightning.backbones.prompt_encoder import TextStreams
from apa_lightning.conditioning.audio_mae import load_conditioner
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.diffusion.objectives import DenoisingObjective

given = settings()

where = device()
backbone = load_backbone(given.get("folder") or "embedded").to(where)
encoder = load_conditioner(f"{given['folder']}/audio_encoder" if given.get("folder") else "embedded").to(where)
adapter = backbone.new_adapter().to(where)
backbone.install([adapter])
spec, window = backbone.mel_spec, backbone.window_samples
frames, bins = encoder.input_size


class STFT:
    """A short-time Fourier transform with mel filters of its own."""

    def __init__(self) -> None:
        self.window = torch.hann_window(spec.n_fft)
        mels = librosa.filters.mel(
            sr=spec.sample_rate, n_fft=spec.n_fft, n_mels=spec.num_mels, fmin=spec.f_min, fmax=spec.f_max
        )
        self.mels = torch.from_numpy(mels).float()

    def mel(self, waveform: torch.Tensor) -> torch.Tensor:
        padding = (spec.n_fft - spec.hop_length) // 2
        padded = torch.nn.functional.pad(waveform[None, None], (padding, padding), mode="reflect")[0]
        spectrum = torch.stft(
            padded, spec.n_fft, spec.hop_length, window=self.window, center=False, return_complex=True
        )
        return torch.log(torch.clamp(self.mels @ spectrum.abs(), min=1e-5))[0].T


class Clips(Dataset):
    """Mel and filter bank of audio files, computed from the file on each use."""

    def __init__(self) -> None:
        self.files = sorted(Path(given["clips"]).glob("*.wav"))

    def __len__(self) -> int:
        return 10**6

    def __getitem__(self, index: int) -> dict:
        waveform = torch.from_numpy(soundfile.read(self.files[index % len(self.files)], dtype="float32")[0])[:window]
        waveform = waveform - waveform.mean()
        waveform = 0.5 * waveform / waveform.abs().max()
        fbank = torchaudio.compliance.kaldi.fbank(
            waveform[None],
            htk_compat=True,
            sample_frequency=16_000,
            window_type="hanning",
            num_mel_bins=bins,
            dither=0.0,
            frame_shift=10,
        )
        fbank = torch.nn.functional.pad(fbank, (0, 0, 0, max(0, frames - len(fbank))))[:frames]
        fbank = (fbank + 4.2677393) / (4.5689974 * 2)
        return {"mel": STFT().mel(waveform), "fbank": fbank, "prompt": "A recording of a piano."}


def collate(items: list[dict]) -> dict:
    with torch.no_grad():
        tokens = [
            encoder.encode_fbank(item["fbank"][None, None].to(where))[:, encoder.encoder.num_prefix_tokens :]
            for item in items
        ]
    return {
        "mel": torch.stack([item["mel"] for item in items])[:, None].to(where),
        "tokens": torch.cat(tokens).unflatten(1, encoder.grid_size),
        "prompt": [item["prompt"] for item in items],
    }


optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-4)
batches = iter(DataLoader(Clips(), given["batch_size"], collate_fn=collate, num_workers=0))
schedule = DenoisingObjective(backbone.scheduler).scheduler


def step() -> None:
    batch = next(batches)
    with torch.no_grad():
        latents = backbone.vae.encode(batch["mel"]).latent_dist.sample() * backbone.vae.config.scaling_factor
        encoded, mask, generated = backbone.pipeline.encode_prompt(
            batch["prompt"], where, 1, do_classifier_free_guidance=False
        )
        text = TextStreams(generated, encoded, mask)
        tokens = pool_tokens(batch["tokens"], 2, 2)
    noise = torch.randn_like(latents)
    times = torch.randint(0, 1000, (len(latents),), device=latents.device)
    predicted = backbone.predict(schedule.add_noise(latents, noise, times), times, text, [tokens])
    loss = torch.nn.functional.mse_loss(predicted, noise)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def unit() -> dict[str, float]:
    seconds = []
    for _ in range(given["steps"]):
        start = clock()
        step()
        seconds.append(clock() - start)
    middle = sorted(seconds)[len(seconds) // 2]
    return {"step": middle, "clips_per_second": given["batch_size"] / middle}


serve(unit)
