"""What the frozen VAE and AudioMAE of a pocket folder make of a window, as it is kept for training the U-Net."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.conditioning.audio_mae import SAMPLE_RATE, AudioMAE
from apa_lightning.pocket.assembly import require
from apa_lightning.utils.pretrained import frozen, no_progress_bars

READ = ("vae", "audio_encoder")


class WindowEncoder:
    """VAE and AudioMAE of ``folder``, as an adapter's training hears a clip of one window.

    Raises:
        InputError: ``folder`` lacks one of them; the message names the recipe that makes it.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu"):
        require(folder, READ)
        self.device = torch.device(device)
        with no_progress_bars():
            vae = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
        self.vae = frozen(vae).to(self.device)
        self.audio_encoder = AudioMAE.from_pretrained(folder / "audio_encoder").to(self.device)

    @property
    def samples(self) -> int:
        """Length of a window at 16 kHz."""
        return round(self.audio_encoder.window_seconds * SAMPLE_RATE)

    @torch.no_grad()
    def __call__(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Encode windows (B, S).

        Args:
            lengths: samples of each window that are no padding.

        Returns:
            in half precision on the CPU: ``mean`` and ``std`` (B, C, T, F) of the scaled latents, ``grid`` (B, T', F', D),
            AudioMAE's unpooled tokens. The VAE hears each window at a peak of 0.5, AudioMAE at its own level.
        """
        waveform = waveform.to(self.device)
        levelled = normalize_level(waveform, lengths=lengths)
        posterior = self.vae.encode(log_mel(levelled, MelSpec())).latent_dist
        factor = self.vae.config.scaling_factor
        encoded = {
            "mean": posterior.mean * factor,
            "std": posterior.std * factor,
            "grid": self.audio_encoder(waveform, lengths=lengths),
        }
        return {name: values.half().cpu() for name, values in encoded.items()}


def fingerprint(folder: Path) -> str:
    """SHA-256 of the files that decide what :class:`WindowEncoder` makes of a window.

    Raises:
        InputError: ``folder`` lacks one of the parts.
    """
    require(folder, READ)
    digest = hashlib.sha256()
    for part in READ:
        for path in sorted(path for path in (folder / part).iterdir() if path.is_file()):
            digest.update(f"{part}/{path.name}".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
