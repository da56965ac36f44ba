"""Encoding windows by the VAE and AudioMAE of a pocket folder that may have no other parts yet."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.backbones.window_encoder import WindowEncoder as ModelWindowEncoder
from apa_lightning.conditioning.audio_mae import SAMPLE_RATE, AudioMAE
from apa_lightning.pocket.assembly import load_frozen, require


class WindowEncoder(ModelWindowEncoder):
    """Encodes windows by the VAE and AudioMAE of ``folder``, as an adapter's training does; prompts are not encoded.

    Raises:
        InputError: If ``folder`` lacks one of them; the message names the recipe that makes it.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, folder: Path):
        require(folder, ("vae", "audio_encoder"))
        self.vae = load_frozen(folder, "vae")
        self.audio_encoder = AudioMAE.from_pretrained(folder / "audio_encoder")

    @property
    def window_seconds(self) -> float:
        """Length of a window."""
        return self.audio_encoder.window_seconds

    @torch.no_grad()
    def encode(self, waveform: Tensor, lengths: Sequence[int] | None = None) -> dict[str, Tensor]:
        """``mean`` and ``std`` (B, C, T, F) of the scaled latents; the VAE encodes each window at a peak of 0.5."""
        posterior = self.vae.encode(log_mel(normalize_level(waveform, lengths=lengths), MelSpec())).latent_dist
        factor = self.vae.config.scaling_factor
        return {"mean": posterior.mean * factor, "std": posterior.std * factor}

    def text_groups(self, prompts: Sequence[str]) -> Iterator[Any]:
        """No prompts: those of the pocket's training are encoded in each step."""
        return iter(())

    def parts(self) -> dict[str, nn.Module]:
        """The modules that encode, by name."""
        return {"vae": self.vae, "audio_encoder": self.audio_encoder}
