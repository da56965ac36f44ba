"""The LOA generator of the pocket backbone: two text encodings -> eight language-of-audio tokens (arXiv 2308.05734, Sec. 3.2)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from apa_lightning.backbones.architectures import POCKET
from apa_lightning.conditioning.audio_mae import AudioMAE
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.errors import InputError
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.parts.part import PocketPart, save_half
from apa_lightning.pocket.text.prompt_encoder import EncodedPrompts, PromptEncoder

TOKENS = 8
FROZEN = "audio_encoder."


class PocketLOA(PocketPart):
    """Regresses the projection of both text encoders and GPT-2 onto the pooled AudioMAE tokens of the clip.

    The text encoders, tokenizers and AudioMAE of ``folder`` are read and stay frozen. The eight tokens are generated in
    training as in use, each from those before it, with gradients through all of them; the loss is the mean squared error.

    Args:
        folder, learning_rate, warmup_steps, weight_decay, betas, seed: see :class:`PocketPart`.
        padded: share of training prompts that are placed as diffusers places them in a batch of longer ones, with a gap
            before the end token; the others as they are when they come alone, which is how this project uses them.

    Raises:
        InputError: a setting out of range; ``folder`` lacks a frozen part.
    """

    writes = ("projection_model", "language_model")

    def __init__(
        self,
        folder: Path = Path("runs/pocket/model"),
        learning_rate: float = 1e-3,
        warmup_steps: int = 50,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        padded: float = 0.25,
        seed: int = 0,
    ):
        super().__init__(folder, learning_rate, warmup_steps, weight_decay, betas, seed)
        if not 0 <= padded <= 1:
            raise InputError(f"model.padded: {padded}; it must be between 0 and 1.")
        self.padded = padded
        require(self.folder, ("audio_encoder",))
        self.prompts = PromptEncoder(self.folder)
        self.audio_encoder = AudioMAE.from_pretrained(self.folder / "audio_encoder")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projection, self.language_model = POCKET.build_projection(), POCKET.build_gpt2()
        self.language_model.transformer.wte.requires_grad_(False)  # tokens come as vectors, and no word is predicted
        self._heard: list[tuple[Tensor, Tensor]] = []
        self.eval()

    def train(self, mode: bool = True) -> "PocketLOA":
        """Always in eval mode: GPT-2's dropout would blur the tokens that it reads back."""
        return super().train(False)

    def _encoded(self, batch: dict[str, Any]) -> tuple[EncodedPrompts, Tensor]:
        """What the generator reads of a batch, and the true LOA (B, 8, W)."""
        prompts = self.prompts(batch["prompt"], self.device)
        return prompts, true_loa(self.audio_encoder, batch["waveform"], batch.get("num_samples"))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        prompts, target = self._encoded(batch)
        if self.global_step == 0:
            everyones: Any = self.all_gather(target)
            begin_at(self.language_model.transformer.ln_f, everyones)
        gap = torch.rand(len(target), generator=self.draws("gap")) < self.padded
        loss = F.mse_loss(generate(self.projection, self.language_model, prompts, gap), target)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(target))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        prompts, target = self._encoded(batch)
        generated = generate(self.projection, self.language_model, prompts)
        self.log("val/loss", F.mse_loss(generated, target), prog_bar=True, batch_size=len(target), sync_dist=True)
        self._heard.append((generated.cpu(), target.cpu()))

    def on_validation_epoch_end(self) -> None:
        generated, target = (torch.cat(parts) for parts in zip(*self._heard, strict=True))
        self._heard.clear()
        for name, mean in (("cosine", torch.zeros(())), ("cosine_centred", target.mean(dim=0))):
            own, others = own_and_others(token_cosine(target - mean, generated - mean))
            self.log(f"val/{name}", own.mean(), sync_dist=True)
            self.log(f"val/{name}_shuffled", others.mean(), sync_dist=True)

    def write(self, folder: Path) -> None:
        save_half(self.projection, folder / "projection_model")
        save_half(self.language_model, folder / "language_model")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = {key: value for key, value in checkpoint["state_dict"].items() if not key.startswith(FROZEN)}
        checkpoint["state_dict"] = kept

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refill the frozen keys, so that Lightning's strict loading holds for the others."""
        checkpoint["state_dict"] |= {f"{FROZEN}{key}": value for key, value in self.audio_encoder.state_dict().items()}


def generate(projection: Any, language_model: Any, prompts: EncodedPrompts, gap: Tensor | None = None) -> Tensor:
    """The eight tokens that ``AudioLDM2Pipeline.encode_prompt`` generates, with gradients.

    Args:
        projection, language_model: ``AudioLDM2ProjectionModel`` and ``GPT2LMHeadModel``.
        gap: (B,) of bool: rows that keep the gap which their padding makes in the positions, as diffusers has it in a batch
            of prompts of different lengths. Other rows come out as if they were alone, and so do all by default.

    Returns:
        (B, 8, W), GPT-2's last hidden states.
    """
    streams = projection(
        hidden_states=prompts.clap[:, None],
        hidden_states_1=prompts.encoded,
        attention_mask=prompts.mask.new_ones(len(prompts.mask), 1),
        attention_mask_1=prompts.mask,
    )
    inputs, mask = streams.hidden_states, streams.attention_mask
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    if gap is not None:
        counted = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
        positions = torch.where(gap.to(mask.device)[:, None], counted, positions)
    cache, tokens = None, []
    for _ in range(TOKENS):
        output = language_model.transformer(
            inputs_embeds=inputs,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        cache, inputs = output.past_key_values, output.last_hidden_state[:, -1:]
        tokens.append(inputs)
        mask, positions = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1), positions[:, -1:] + 1
    return torch.cat(tokens, dim=1)


@torch.no_grad()
def begin_at(norm: Any, targets: Tensor) -> None:
    """Give the outputs of a fresh layer norm the mean and deviation of ``targets`` (..., W), channel by channel.

    What all tokens share is most of them; an optimizer would walk there for hundreds of steps.
    """
    flat = targets.flatten(0, -2)
    norm.bias.copy_(flat.mean(dim=0))
    norm.weight.copy_(flat.std(dim=0))


def true_loa(audio_encoder: AudioMAE, waveform: Tensor, lengths: list[int] | None = None) -> Tensor:
    """What the generator should say of a clip: AudioMAE's grid of (B, S) pooled to eight stretches of time, (B, 8, W).

    Pooled by :func:`pool_tokens` (mean of average and maximum), as an audio prompt is.
    """
    grid = audio_encoder(waveform, lengths=lengths)
    return pool_tokens(grid, grid.shape[1] // TOKENS, grid.shape[2])


def token_cosine(first: Tensor, second: Tensor) -> Tensor:
    """Cosine similarity of every pair of clips, mean over the tokens: (N, 8, W), (M, 8, W) -> (N, M)."""
    return torch.einsum("ntw,mtw->nm", F.normalize(first, dim=-1), F.normalize(second, dim=-1)) / first.shape[1]


def own_and_others(similarity: Tensor) -> tuple[Tensor, Tensor]:
    """Of (N, N): each row's similarity to its own column (N,), and its mean to all others (N,); NaN for a single clip."""
    own = similarity.diagonal()
    return own, (similarity.sum(dim=1) - own) / (len(own) - 1)
