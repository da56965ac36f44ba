"""Both text streams of prompts from the frozen parts of a pocket folder, each prompt encoded once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apa_lightning.backbones.text_streams import TextStreams
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.loading import load_frozen
from apa_lightning.pocket.text.prompt_encoder import EncodedPrompts, PromptEncoder

TOKENS = 8


class PromptStreams:
    """Encodes prompts as the backbone does, without a U-Net, on the CPU; an empty prompt means unconditional.

    Raises:
        InputError: If ``folder`` lacks a text encoder, a tokenizer or the LOA generator; the message names the recipe.
    """

    def __init__(self, folder: Path):
        require(folder, ("projection_model", "language_model"))
        self.prompts = PromptEncoder(folder)
        self.projection, self.language_model = (
            load_frozen(folder, f"{part}_model") for part in ("projection", "language")
        )
        self._known: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device | str = "cpu") -> TextStreams:
        """The streams of B prompts on ``device``; each is encoded alone, so that its neighbors do not matter."""
        for prompt in prompts:
            if prompt not in self._known:
                encoded = self.prompts([prompt])
                generated = generate(self.projection, self.language_model, encoded)
                self._known[prompt] = (generated[0], encoded.encoded[0], encoded.mask[0])
        streams = TextStreams.stack([self._known[prompt] for prompt in prompts])
        return TextStreams(streams.generated.to(device), streams.encoded.to(device), streams.mask.to(device))


def generate(projection: Any, language_model: Any, prompts: EncodedPrompts, gap: Tensor | None = None) -> Tensor:
    """The eight tokens that ``AudioLDM2Pipeline.encode_prompt`` generates, with gradients.

    Args:
        projection: ``AudioLDM2ProjectionModel``.
        language_model: ``GPT2LMHeadModel``.
        prompts: Encoded prompts.
        gap: Rows (B,) that keep the gap which their padding makes in the positions, as in diffusers in a batch of prompts of
            different lengths. Other rows come out as if they were alone, and so do all by default.

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
