"""Encoding of prompts by the frozen text encoders and the LOA generator of a pocket folder, each prompt once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from apa_lightning.backbones.prompt_encoder import TextStreams
from apa_lightning.pocket.assembly import load_frozen, load_processor, require

TOKENS = 8


@dataclass(frozen=True)
class EncodedPrompts:
    """Encoded prompts of a batch, the input of the LOA generator."""

    clap: Tensor  # CLAP's text embeddings (B, D1)
    encoded: Tensor  # T5 states (B, L, D2), padded at the end
    mask: Tensor  # 1 where a T5 state is text, 0 where it is padding (B, L)


class PromptEncoder:
    """Encodes prompts by CLAP's text branch and T5 of ``folder``, on the CPU, as ``AudioLDM2Pipeline.encode_prompt`` does.

    Every prompt is encoded alone, so that its numbers do not depend on its neighbors, and kept: captions repeat.

    Raises:
        InputError: If ``folder`` lacks a text encoder or tokenizer; the message names the recipe that makes it.
    """

    def __init__(self, folder: Path):
        require(folder, ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"))
        self.tokenizer, self.tokenizer_2 = (load_processor(folder, name) for name in ("tokenizer", "tokenizer_2"))
        self.clap, self.t5 = load_frozen(folder, "text_encoder"), load_frozen(folder, "text_encoder_2")
        self._known = cache(self._encode)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device | str = "cpu") -> EncodedPrompts:
        """The encoded ``prompts``, on ``device``."""
        clap, encoded = zip(*map(self._known, prompts), strict=True)
        mask = pad_sequence([states.new_ones(len(states), dtype=torch.long) for states in encoded], True)
        padded = pad_sequence(list(encoded), True)
        return EncodedPrompts(torch.stack(clap).to(device), padded.to(device), mask.to(device))

    def _encode(self, prompt: str) -> tuple[Tensor, Tensor]:
        whole = {"truncation": True, "return_tensors": "pt"}
        ids = self.tokenizer(prompt, padding="max_length", **whole)  # as diffusers pads it
        embedding = self.clap.get_text_features(ids.input_ids, attention_mask=ids.attention_mask).pooler_output
        ids = self.tokenizer_2(prompt, **whole)
        return embedding[0], self.t5(ids.input_ids, attention_mask=ids.attention_mask).last_hidden_state[0]


class PromptStreams:
    """Encodes prompts as the backbone does, without a U-Net, on the CPU; an empty prompt means unconditional.

    Raises:
        InputError: If ``folder`` lacks a text encoder, a tokenizer or the LOA generator; the message names the recipe.
    """

    def __init__(self, folder: Path):
        require(folder, ("projection_model", "language_model"))
        self.prompts = PromptEncoder(folder)
        self.projection = load_frozen(folder, "projection_model")
        self.language_model = load_frozen(folder, "language_model")
        self._known = cache(self._encode)

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device | str = "cpu") -> TextStreams:
        """The streams of B prompts on ``device``; each is encoded alone, so that its neighbors do not matter."""
        streams = TextStreams.stack([self._known(prompt) for prompt in prompts])
        return TextStreams(streams.generated.to(device), streams.encoded.to(device), streams.mask.to(device))

    def _encode(self, prompt: str) -> tuple[Tensor, Tensor, Tensor]:
        encoded = self.prompts([prompt])
        generated = generate(self.projection, self.language_model, encoded)
        return generated[0], encoded.encoded[0], encoded.mask[0]


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
    # The cache is updated in place; it is the second argument, whose name differs between versions of transformers.
    past, tokens = DynamicCache(config=language_model.config), []
    for _ in range(TOKENS):
        states = language_model.transformer(
            None, past, inputs_embeds=inputs, attention_mask=mask, position_ids=positions, use_cache=True
        ).last_hidden_state
        inputs = states[:, -1:]
        tokens.append(inputs)
        mask, positions = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1), positions[:, -1:] + 1
    return torch.cat(tokens, dim=1)
