"""Encoding windows by the frozen VAE and AudioMAE of a pocket folder, for the cache of the U-Net's training."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.conditioning.audio_mae import SAMPLE_RATE, AudioMAE
from apa_lightning.pocket.assembly import load_frozen, require

READ = ("vae", "audio_encoder")


class WindowEncoder:
    """Encodes windows by the VAE and AudioMAE of ``folder``, as an adapter's training does with clips of one window.

    Raises:
        InputError: If ``folder`` lacks one of them; the message names the recipe that makes it.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu"):
        require(folder, READ)
        self.device = torch.device(device)
        self.vae = load_frozen(folder, "vae").to(self.device)
        self.audio_encoder = AudioMAE.from_pretrained(folder / "audio_encoder").to(self.device)

    @property
    def samples(self) -> int:
        """Length of a window at 16 kHz."""
        return round(self.audio_encoder.window_seconds * SAMPLE_RATE)

    @torch.no_grad()
    def __call__(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Encode windows (B, S).

        Args:
            waveform: Windows (B, S) at 16 kHz.
            lengths: Samples of each window that are not padding.

        Returns:
            In half precision on the CPU: ``mean`` and ``std`` (B, C, T, F) of the scaled latents, and ``grid``
            (B, T', F', D), AudioMAE's unpooled tokens. The VAE encodes each window at a peak of 0.5, AudioMAE at its own
            level.
        """
        waveform = waveform.to(self.device)
        leveled = normalize_level(waveform, lengths=lengths)
        posterior = self.vae.encode(log_mel(leveled, MelSpec())).latent_dist
        factor = self.vae.config.scaling_factor
        encoded = {
            "mean": posterior.mean * factor,
            "std": posterior.std * factor,
        }
        return {**{name: values.half().cpu() for name, values in encoded.items()}, "grid": self.grid(waveform, lengths)}

    @torch.no_grad()
    def grid(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """AudioMAE's unpooled tokens (B, T', F', D) of windows (B, S), in half precision on the CPU."""
        return self.audio_encoder(waveform.to(self.device), lengths=lengths).half().cpu()


def fingerprint(folder: Path) -> str:
    """SHA-256 of the files that decide the output of :class:`WindowEncoder`.

    Raises:
        InputError: If ``folder`` lacks one of the parts.
    """
    require(folder, READ)
    digest = hashlib.sha256()
    for part in READ:
        for path in sorted(path for path in (folder / part).iterdir() if path.is_file()):
            digest.update(f"{part}/{path.name}".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
