"""Encoding prompts by the frozen text encoders of a pocket folder, each prompt once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.loading import load_frozen
from apa_lightning.utils.pretrained import no_progress_bars


@dataclass(frozen=True)
class EncodedPrompts:
    """Encoded prompts of a batch, the input of the LOA generator.

    Attributes:
        clap: CLAP's text embeddings (B, D1).
        encoded: T5 states (B, L, D2), padded at the end.
        mask: 1 where a T5 state is text, 0 where it is padding (B, L).
    """

    clap: Tensor
    encoded: Tensor
    mask: Tensor


class PromptEncoder:
    """Encodes prompts by CLAP's text branch and T5 of ``folder``, on the CPU, as ``AudioLDM2Pipeline.encode_prompt`` does.

    Every prompt is encoded alone, so that its numbers do not depend on its neighbors, and kept: captions repeat.

    Raises:
        InputError: If ``folder`` lacks a text encoder or tokenizer; the message names the recipe that makes it.
    """

    def __init__(self, folder: Path):
        require(folder, ("tokenizer", "text_encoder", "tokenizer_2", "text_encoder_2"))
        with no_progress_bars():
            self.tokenizer = transformers.RobertaTokenizer.from_pretrained(folder / "tokenizer")
            self.tokenizer_2 = transformers.T5Tokenizer.from_pretrained(folder / "tokenizer_2")
        self.clap, self.t5 = load_frozen(folder, "text_encoder"), load_frozen(folder, "text_encoder_2")
        self._known: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device | str = "cpu") -> EncodedPrompts:
        """The encoded ``prompts``, on ``device``."""
        for prompt in prompts:
            if prompt not in self._known:
                self._known[prompt] = self._encode(prompt)
        clap, encoded = zip(*(self._known[prompt] for prompt in prompts), strict=True)
        mask = pad_sequence([states.new_ones(len(states), dtype=torch.long) for states in encoded], True)
        return EncodedPrompts(
            torch.stack(clap).to(device), pad_sequence(list(encoded), True).to(device), mask.to(device)
        )

    def _encode(self, prompt: str) -> tuple[Tensor, Tensor]:
        whole = {"truncation": True, "return_tensors": "pt"}
        ids = self.tokenizer(
            prompt, padding="max_length", max_length=self.tokenizer.model_max_length, **whole
        )  # as diffusers pads it
        embedding = self.clap.get_text_features(ids.input_ids, attention_mask=ids.attention_mask).pooler_output
        ids = self.tokenizer_2(prompt, max_length=self.tokenizer_2.model_max_length, **whole)
        return embedding[0], self.t5(ids.input_ids, attention_mask=ids.attention_mask).last_hidden_state[0]
