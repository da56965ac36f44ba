"""Losses of a U-Net with a clip's own conditions and with those of another clip; the gap shows whether it uses them.

These gaps are the gates of the pocket's U-Net: where the loss is not larger with another clip's audio tokens, no adapter can
carry a tune.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apa_lightning.adapters.attention import with_audio_tokens
from apa_lightning.backbones.prompt_encoder import TextStreams
from apa_lightning.conditioning.pooling import POOLING_RATES, pool_tokens
from apa_lightning.diffusion.losses import mean_squared_error
from apa_lightning.metrics import following_others
from apa_lightning.pocket.parts.phases import TIMESTEPS
from apa_lightning.pocket.text.prompt_streams import PromptStreams
from apa_lightning.utils.rng import generator_for, randn

GATE = (350, 950)
"""Range of the timesteps of the gaps; below it, the noisy latent itself determines the rest."""
MIDDLE = 650

GAPS = (*((f"omega_{rate}", "text", rate) for rate in POOLING_RATES), ("no_text", "nothing", 1))
"""Gaps between matched and shuffled audio: name, text stream, pooling rate."""
_GAP_NAMES = (*(name for name, _, _ in GAPS), "omega_1_low", "omega_1_high")
QUOTIENTS = (
    *((f"shuffled_excess_{name}", f"shuffled_{name}", f"matched_{name}") for name in _GAP_NAMES),
    ("wrong_text_excess", "wrong_text", "right_text"),
)
"""Relative excess of the first loss over the second."""
LOSSES = ("loss", *(loss for _, *pair in QUOTIENTS for loss in pair))


def conditioning_losses(
    unet: Any, scheduler: Any, streams: PromptStreams, batch: dict[str, Any], key: Sequence[Any], adapted: bool = False
) -> dict[str, Tensor]:
    """Losses of a batch of different clips, one per item, by the names of :data:`LOSSES`.

    Losses that this batch cannot give are absent. The batch is one of ``datamodules.EncodedDataModule``, on the device of
    ``unet``; ``key`` seeds every draw, so that the losses of two U-Nets can be compared. Where the U-Net is ``adapted``, its
    adapter reads the audio tokens beside the generated stream; else they replace it.
    """
    latents = sample(batch, generator_for(*key, "latents"))
    size, grid, device = len(latents), batch["grid"].float(), latents.device
    text, nothing = (streams(prompts, device) for prompts in (batch["prompt"], [""] * size))
    timesteps = spread(GATE, size, generator_for(*key, "timesteps"))

    def loss(at: Tensor, texts: TextStreams, loa: Any) -> Tensor:
        return denoising_loss(unet, scheduler, latents, at, texts, loa, generator_for(*key, "noise"))

    everywhere = spread((0, TIMESTEPS - 1), size, generator_for(*key, "all timesteps"))
    losses = {"loss": loss(everywhere, text, text.generated)}
    if (wrong := other_labels(batch["labels"])) is not None:
        wrong_text = streams([batch["prompt"][i] for i in wrong], device)
        losses["right_text"] = loss(timesteps, text, text.generated)
        losses["wrong_text"] = loss(timesteps, wrong_text, wrong_text.generated)
    if size == 1:
        return losses  # nothing to shuffle
    low = (timesteps < MIDDLE).to(device)
    for name, texts, omega in GAPS:
        pooled = pool_tokens(grid, omega)
        prompts = text if texts == "text" else nothing
        for kind, tokens in (("matched", pooled), ("shuffled", pooled.roll(1, dims=0))):
            loa = with_audio_tokens(prompts.generated, [tokens]) if adapted else tokens
            values = losses[f"{kind}_{name}"] = loss(timesteps, prompts, loa)
            if name == "omega_1":
                losses[f"{kind}_{name}_low"], losses[f"{kind}_{name}_high"] = values[low], values[~low]
    return losses


def denoising_loss(
    unet: Any, scheduler: Any, latents: Tensor, timesteps: Tensor, text: TextStreams, loa: Any, draw: torch.Generator
) -> Tensor:
    """Mean squared error of the predicted noise of each item (B,), Eq. 10."""
    noise, timesteps = randn(tuple(latents.shape), draw, latents), timesteps.to(latents.device)
    predicted = unet(
        scheduler.add_noise(latents, noise, timesteps),
        timesteps,
        encoder_hidden_states=loa,
        encoder_hidden_states_1=text.encoded,
        encoder_attention_mask_1=text.mask,
        return_dict=False,
    )[0]
    return mean_squared_error(predicted, noise)


def sample(batch: dict[str, Any], draw: torch.Generator) -> Tensor:
    """A sample (B, C, T, F) of the VAE's posterior from its moments."""
    mean = batch["mean"].float()
    return mean + batch["std"].float() * randn(tuple(mean.shape), draw, mean)


def spread(limits: tuple[int, int], count: int, draw: torch.Generator) -> Tensor:
    """Timesteps (N,), one in each of ``count`` equal stretches of [low, high], in random order: less noise than N draws."""
    low, high = limits
    places = (torch.randperm(count, generator=draw) + torch.rand(count, generator=draw)) / count
    return low + (places * (high + 1 - low)).long().clamp(max=high - low)


def other_labels(labels: Sequence[Sequence[str]]) -> list[int] | None:
    """For each item the next one with other labels; None where some item has none."""
    others = following_others(range(len(labels)), lambda i: tuple(labels[i]))
    return None if None in others else [i for i in others if i is not None]
