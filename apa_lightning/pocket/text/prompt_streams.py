"""Both text streams of prompts from the frozen parts of a pocket folder, each prompt encoded once."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AudioLDM2ProjectionModel
from torch import Tensor
from transformers import GPT2LMHeadModel

from apa_lightning.backbones.text_streams import TextStreams
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.parts.loa import generate
from apa_lightning.pocket.text.prompt_encoder import PromptEncoder
from apa_lightning.utils.pretrained import frozen, no_progress_bars


class PromptStreams:
    """What ``AudioLDM2Backbone.encode_text`` gives, without a U-Net, on the CPU; an empty prompt means unconditional.

    Raises:
        InputError: ``folder`` lacks a text encoder, a tokenizer or the LOA generator; the message names the recipe.
    """

    def __init__(self, folder: Path):
        require(folder, ("projection_model", "language_model"))
        self.prompts = PromptEncoder(folder)
        with no_progress_bars():
            projection = AudioLDM2ProjectionModel.from_pretrained(
                folder / "projection_model", torch_dtype=torch.float32
            )
            language_model = GPT2LMHeadModel.from_pretrained(folder / "language_model", dtype=torch.float32)
        self.projection, self.language_model = frozen(projection), frozen(language_model)
        self._known: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device | str = "cpu") -> TextStreams:
        """The streams of B prompts on ``device``; each is encoded alone, so that its neighbours do not matter."""
        for prompt in prompts:
            if prompt not in self._known:
                encoded = self.prompts([prompt])
                generated = generate(self.projection, self.language_model, encoded)
                self._known[prompt] = (generated[0], encoded.encoded[0], encoded.mask[0])
        streams = TextStreams.stack([self._known[prompt] for prompt in prompts])
        return TextStreams(streams.generated.to(device), streams.encoded.to(device), streams.mask.to(device))
