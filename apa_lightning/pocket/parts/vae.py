"""Training the VAE of the pocket backbone on log-mels (arXiv 2301.12503, Sec. 3.2)."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torchmetrics import MeanMetric

from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.backbones.architectures import POCKET
from apa_lightning.errors import InputError
from apa_lightning.pocket.assembly import save_half
from apa_lightning.pocket.instrument_judge import LOG_MEL_MEAN, LOG_MEL_STD
from apa_lightning.pocket.parts.part import FOLDER, PocketPart, check, not_negative
from apa_lightning.utils.rng import randn, seeded

FIRST_LOGVAR = -6.0
"""Log-variance of the untrained posterior; with 0, the class's own, its noise would drown the latents."""
MEL = MelSpec()
COMPRESSION = 2 ** (len(POCKET.vae["block_out_channels"]) - 1)


class PocketVAE(PocketPart):
    """Trains an ``AutoencoderKL`` to reconstruct log-mels of short pieces of clips, with a very weak prior.

    Frames and bins are both divided by four. The ``scaling_factor`` that is written gives the latents of the validation
    clips a deviation of 1: let ``trainer.val_check_interval`` divide ``trainer.max_steps``, so that the last weights are
    the measured ones.

    Args:
        folder: Folder of the pocket backbone.
        crop_frames: Mel frames of 10 ms of the piece that is cut from each clip, at a random place.
        kl_weight: Weight of the KL divergence to a standard normal (nats per latent number) next to L1 per mel number.
        **schedule: Settings of :class:`PocketPart`.
    """

    writes = ("vae",)
    latent_std: Tensor

    def __init__(self, folder: Path = FOLDER, crop_frames: int = 128, kl_weight: float = 1e-5, **schedule: Any):
        super().__init__(folder, **schedule)
        fits = crop_frames >= COMPRESSION and crop_frames % COMPRESSION == 0
        self.crop_frames = check("crop_frames", crop_frames, fits, f"it must be a positive multiple of {COMPRESSION}.")
        self.kl_weight = not_negative("kl_weight", kl_weight)
        with seeded(self.seed):
            self.vae = initialize(POCKET.build_vae())
        self.register_buffer("latent_std", torch.ones(()))
        self._mean, self._square = MeanMetric(), MeanMetric()  # of the latents, over one validation

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        mel = random_crops(leveled_log_mel(batch), self.crop_frames, self.draws("crops"))
        posterior = self.vae.encode(mel).latent_dist
        latents = posterior.mean + posterior.std * randn(posterior.mean.shape, self.draws("posterior"), mel)
        l1 = l1_per_clip(self.vae.decode(latents).sample, mel).mean()
        kl = kl_per_number(posterior.mean, posterior.logvar)
        loss = l1 + self.kl_weight * kl
        self.log_scores("train", {"l1": l1, "kl": kl, "loss": loss}, len(mel))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        mel = leveled_log_mel(batch)
        posterior = self.vae.encode(mel).latent_dist
        reconstruction = self.vae.decode(posterior.mean).sample
        l1 = l1_per_clip(reconstruction, mel)
        self.log_scores("val", {"loss": l1.mean(), "posterior_std": posterior.std.mean()}, len(mel))
        backing = torch.tensor([fields.get("kind") != "solo" for fields in batch.get("metadata", [])], device=l1.device)
        for name, chosen in (("l1_solo", ~backing), ("l1_backing", backing)):
            if chosen.any():
                self.log_scores("val", {name: l1[chosen].mean()}, int(chosen.sum()))
        self._mean.update(posterior.mean, len(mel))
        self._square.update(posterior.mean**2 + posterior.var, len(mel))
        if batch_idx == 0:
            self._show(mel[:3], reconstruction[:3])

    def on_validation_epoch_end(self) -> None:
        mean, square = self._mean.compute(), self._square.compute()
        self._mean.reset()
        self._square.reset()
        self.latent_std.copy_((square - mean**2).sqrt())
        self.log("val/latent_std", self.latent_std)

    def _show(self, mel: Tensor, reconstruction: Tensor) -> None:
        """Log pictures of the source above its reconstruction, darkest at silence."""
        if not isinstance(self.logger, TensorBoardLogger) or self.trainer.sanity_checking:
            return
        pairs = torch.cat([reconstruction, mel], dim=3).transpose(2, 3).flip(2)  # low notes at the bottom
        grey = (1 + pairs / -float(torch.log(torch.tensor(1e-5)))).clamp(0, 1)
        self.logger.experiment.add_images("val/source_above_reconstruction", grey, self.global_step)

    def write(self, folder: Path) -> None:
        self.vae.register_to_config(scaling_factor=round(1 / float(self.latent_std), 5))
        save_half(self.vae, folder / "vae")


def initialize(vae: Any) -> Any:
    """Center a fresh ``vae`` on the mean of log-mels instead of 0, with precise latents; training soon gets there too."""
    first, moments, last = vae.encoder.conv_in, vae.quant_conv, vae.decoder.conv_out
    with torch.no_grad():
        first.weight /= LOG_MEL_STD
        first.bias -= LOG_MEL_MEAN * first.weight.sum(dim=(1, 2, 3))
        moments.bias[vae.config.latent_channels :] = FIRST_LOGVAR
        last.weight *= LOG_MEL_STD
        last.bias.fill_(LOG_MEL_MEAN)
    return vae


def leveled_log_mel(batch: dict[str, Any]) -> Tensor:
    """Log-mel (B, 1, T, F) of a batch's waveforms, as the backbone encodes them."""
    return log_mel(normalize_level(batch["waveform"], lengths=batch.get("num_samples")), MEL)


def random_crops(mel: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """A piece (B, 1, frames, F) of each item of (B, 1, T, F), at a random place.

    Raises:
        InputError: If the items are shorter.
    """
    length = mel.shape[2]
    if frames > length:
        raise InputError(
            f"model.crop_frames: {frames}, but clips have {length} frames. Lower it, or raise data.audio_length_in_s."
        )
    starts = torch.randint(length - frames + 1, (len(mel),), generator=generator).tolist()
    return torch.stack([item[:, start : start + frames] for item, start in zip(mel, starts, strict=True)])


def l1_per_clip(reconstruction: Tensor, mel: Tensor) -> Tensor:
    """Mean absolute difference of two log-mels (B, ..., T, F), in nats: (B,)."""
    return (reconstruction - mel).abs().flatten(1).mean(dim=1)


def kl_per_number(mean: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of a normal posterior to the standard normal, mean over all numbers, in nats."""
    return 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
