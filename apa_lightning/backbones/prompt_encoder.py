"""Prompts to the two text streams of AudioLDM2's U-Net, once for each prompt."""

import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from apa_lightning.backbones.text_streams import TextStreams
from apa_lightning.errors import InputError

log = logging.getLogger(__name__)

CACHE_SIZE = 4096


class PromptEncoder:
    """Encodes prompts by a pipeline's CLAP, T5 and GPT-2, and keeps the results in main memory for repeated prompts.

    A prompt's streams do not depend on its neighbours in the batch: on a GPU prompts are encoded in groups of equal token
    count, never padded; on a CPU one by one, so that not even the last bit differs and a resumed run is exact.
    """

    def __init__(self, pipeline: Any):  # a diffusers AudioLDM2Pipeline
        self.pipeline = pipeline
        self._kept: OrderedDict[str, tuple[Tensor, ...]] = OrderedDict()
        self._warned: set[str] = set()

    def forget(self) -> None:
        """Encode every prompt anew."""
        self._kept.clear()

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device) -> TextStreams:
        """Both streams of ``prompts``, on ``device``, where the pipeline's parts must be.

        Raises:
            InputError: If a prompt is not a string.
        """
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise InputError(f"prompt: {prompt!r} is not text; give a string ('' means unconditional).")
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._kept]
        groups: dict[object, list[str]] = {}
        for prompt in missing:
            tokens = self._count_tokens(prompt)
            groups.setdefault(prompt if device.type == "cpu" else tokens, []).append(prompt)
        for group in groups.values():
            encoded, mask, generated = self.pipeline.encode_prompt(group, device, 1, do_classifier_free_guidance=False)
            for i, prompt in enumerate(group):
                self._kept[prompt] = tuple(t[i].detach().cpu().clone() for t in (generated, encoded, mask))
        rows: list[Any] = []
        for prompt in prompts:
            self._kept.move_to_end(prompt)
            rows.append(tuple(t.to(device) for t in self._kept[prompt]))
        while len(self._kept) > CACHE_SIZE:
            self._kept.popitem(last=False)
        return TextStreams.stack(rows)

    def _count_tokens(self, prompt: str) -> int:
        """T5 tokens of ``prompt`` after truncation; warns once per prompt when text is lost."""
        counts = [
            (len(t(prompt, verbose=False).input_ids), t.model_max_length)
            for t in (self.pipeline.tokenizer, self.pipeline.tokenizer_2)
        ]
        for tokens, limit in counts:
            if tokens > limit and prompt not in self._warned:
                self._warned.add(prompt)
                log.warning(
                    "prompt: %d tokens, the text encoder reads %d; the end is cut: %r",
                    tokens,
                    limit,
                    prompt[:60] + "...",
                )
        return min(counts[1])
