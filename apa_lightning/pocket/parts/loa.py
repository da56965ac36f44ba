"""Training the LOA generator: two text encodings -> eight language-of-audio tokens (arXiv 2308.05734, Sec. 3.2)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from apa_lightning.backbones.architectures import POCKET
from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.pocket.assembly import require, save_half
from apa_lightning.pocket.parts.part import FOLDER, PocketPart, share
from apa_lightning.pocket.text.prompt_streams import TOKENS, EncodedPrompts, PromptEncoder, generate
from apa_lightning.pocket.window_encoder import WindowEncoder
from apa_lightning.utils.rng import seeded

FROZEN = "audio_encoder."


class PocketLOA(PocketPart):
    """Trains the projection of both text encoders and GPT-2 to predict the pooled AudioMAE tokens of the clip.

    The text encoders, tokenizers and AudioMAE of ``folder`` are read and stay frozen. Batches are those of
    ``datamodules.EncodedDataModule`` or, encoded in each step, of ``AudioSetDataModule``. The eight tokens are generated in
    training as in use, each from those before it, with gradients through all of them; the loss is the mean squared error.
    Dropout is off: it would blur the tokens that GPT-2 reads back.

    Args:
        folder: Folder of the pocket backbone.
        padded: Share of training prompts that are placed as diffusers places them in a batch of longer ones, with a gap
            before the end token; the others as they are when they come alone, which is how this project uses them.
        **schedule: Settings of :class:`PocketPart`.
    """

    writes = ("projection_model", "language_model")
    evaluated = ("projection", "language_model", "audio_encoder")

    def __init__(self, folder: Path = FOLDER, padded: float = 0.25, **schedule: Any):
        super().__init__(folder, **schedule)
        self.padded = share("padded", padded)
        require(self.folder, ("audio_encoder",))
        self.prompts = PromptEncoder(self.folder)
        self.audio_encoder = AudioMAE.from_pretrained(self.folder / "audio_encoder")
        with seeded(self.seed):
            self.projection, self.language_model = POCKET.build_projection(), POCKET.build_gpt2()
        self.language_model.transformer.wte.requires_grad_(False)  # tokens come as vectors, and no word is predicted
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self.train()

    def _encoded(self, batch: dict[str, Any]) -> tuple[EncodedPrompts, Tensor]:
        """The encoded prompts of a batch, and the true LOA (B, 8, W)."""
        grid = batch["grid"].float() if "grid" in batch else None
        if grid is None:
            grid = self.audio_encoder(batch["waveform"], lengths=batch.get("num_samples"))
        return self.prompts(batch["prompt"], self.device), true_loa(grid)

    def window_encoder(self) -> WindowEncoder:
        """What encodes the windows of a cache."""
        return WindowEncoder(self.folder)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        prompts, target = self._encoded(batch)
        if self.global_step == 0:
            gathered: Any = self.all_gather(target)
            match_moments(self.language_model.transformer.ln_f, gathered)
        gap = torch.rand(len(target), generator=self.draws("gap")) < self.padded
        loss = F.mse_loss(generate(self.projection, self.language_model, prompts, gap), target)
        self.log_scores("train", {"loss": loss}, len(target))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        prompts, target = self._encoded(batch)
        generated = generate(self.projection, self.language_model, prompts)
        self.log_scores("val", {"loss": F.mse_loss(generated, target)}, len(target))
        self._pairs.append((generated.cpu(), target.cpu()))

    def on_validation_epoch_end(self) -> None:
        generated, target = (torch.cat(parts) for parts in zip(*self._pairs, strict=True))
        self._pairs.clear()
        for name, mean in (("cosine", torch.zeros(())), ("cosine_centred", target.mean(dim=0))):
            own, others = own_and_others(token_cosine(target - mean, generated - mean))
            self.log_scores("val", {name: own.mean(), f"{name}_shuffled": others.mean()}, 1)

    def write(self, folder: Path) -> None:
        save_half(self.projection, folder / "projection_model")
        save_half(self.language_model, folder / "language_model")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = {key: value for key, value in checkpoint["state_dict"].items() if not key.startswith(FROZEN)}
        checkpoint["state_dict"] = kept

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refill the frozen keys, so that Lightning's strict loading holds for the others."""
        checkpoint["state_dict"] |= {f"{FROZEN}{key}": value for key, value in self.audio_encoder.state_dict().items()}


@torch.no_grad()
def match_moments(norm: Any, targets: Tensor) -> None:
    """Give the outputs of a fresh layer norm the mean and deviation of ``targets`` (..., W), channel by channel.

    The mean of all tokens is the largest part of each; an optimizer would take hundreds of steps to reach it.
    """
    flat = targets.flatten(0, -2)
    norm.bias.copy_(flat.mean(dim=0))
    norm.weight.copy_(flat.std(dim=0))


def true_loa(grid: Tensor) -> Tensor:
    """The target of the generator: AudioMAE's grid (B, T, F, W) pooled to eight stretches of time, (B, 8, W).

    Pooled by :func:`pool_tokens` (mean of average and maximum), as an audio prompt is.
    """
    return pool_tokens(grid, grid.shape[1] // TOKENS, grid.shape[2])


def token_cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity of every pair of clips, mean over the tokens: (N, 8, W), (M, 8, W) -> (N, M)."""
    return torch.einsum("ntw,mtw->nm", F.normalize(first, dim=-1), F.normalize(second, dim=-1)) / first.shape[1]


def own_and_others(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Of (N, N): each row's similarity to its own column (N,), and its mean to all others (N,); NaN for a single clip."""
    own = similarity.diagonal()
    return own, (similarity.sum(dim=1) - own) / (len(own) - 1)
