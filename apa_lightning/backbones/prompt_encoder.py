"""Prompts to what a backbone reads of them, once for each prompt."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import only_errors

log = logging.getLogger(__name__)

CACHE_SIZE = 4096


#: Tensors of prompts, each with the prompts as first axis.
Encode = Callable[[list[str], torch.device], Sequence[Tensor]]


class PromptEncoder:
    """Encodes prompts, and keeps the results in main memory for repeated ones.

    A prompt's tensors do not depend on its neighbours in the batch: on a GPU prompts are encoded in groups of equal token
    count; on a CPU one by one, so that not even the last bit differs and a resumed run is exact.

    Args:
        encode: Encodes prompts of as many T5 tokens on a device.
        tokenizers: Of the text encoders, by their names; one is called ``T5``.
    """

    def __init__(self, encode: Encode, tokenizers: Mapping[str, Any]):
        self.encode, self.tokenizers = encode, tokenizers
        for tokenizer in tokenizers.values():
            # Text beyond the limit is cut here and in diffusers, so the "indexing errors" that transformers foresees never come.
            tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
        self._kept: OrderedDict[str, tuple[Tensor, ...]] = OrderedDict()
        self._warned: set[str] = set()

    def forget(self) -> None:
        """Encode every prompt anew."""
        self._kept.clear()

    @torch.no_grad()
    def __call__(self, prompts: Sequence[str], device: torch.device) -> list[tuple[Tensor, ...]]:
        """The tensors of each prompt on ``device``, where the text encoders must be.

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
            with only_errors():  # diffusers names the tokens that are cut, and not in the words of the prompt
                encoded = self.encode(group, device)
            for i, prompt in enumerate(group):
                self._kept[prompt] = tuple(t[i].detach().cpu().clone() for t in encoded)
        rows = []
        for prompt in prompts:
            self._kept.move_to_end(prompt)
            rows.append(tuple(t.to(device) for t in self._kept[prompt]))
        while len(self._kept) > CACHE_SIZE:
            self._kept.popitem(last=False)
        return rows

    def lost_text(self, prompt: str) -> dict[str, str]:
        """The end of ``prompt`` that is behind an encoder's limit, by the encoder's name; empty where all of it is read."""
        lost = {name: _behind_limit(tokenizer, prompt) for name, tokenizer in self.tokenizers.items()}
        return {name: text for name, text in lost.items() if text}

    def _count_tokens(self, prompt: str) -> int:
        """T5 tokens of ``prompt`` after truncation; warns once per prompt of text that is lost."""
        for name, text in self.lost_text(prompt).items() if prompt not in self._warned else ():
            log.warning(
                "prompt: %s reads %d tokens and not the end of %r: %r is lost.",
                name,
                self.tokenizers[name].model_max_length,
                _shortened(prompt),
                _shortened(text),
            )
        self._warned.add(prompt)
        return len(self.tokenizers["T5"](prompt, truncation=True).input_ids)


def _behind_limit(tokenizer: Any, text: str) -> str:
    """What of ``text`` a tokenizer's limit cuts off."""
    read = tokenizer(text, truncation=True, return_offsets_mapping=True, return_overflowing_tokens=True)
    if len(read["input_ids"]) == 1:
        return ""
    return text[max(end for _, end in read["offset_mapping"][0]) :].strip()


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"
