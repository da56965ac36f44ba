"""AudioLDM2's U-Net by OpenVINO.

The keys and values of text and audio prompts are computed once per edit and are inputs of the exported graph, the latter times
alpha. So one export serves every adapter, prompt and scale.
"""

from collections.abc import Container, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from apa_lightning.adapters.attention import keys_values, scales_of
from apa_lightning.backbones.prompt_encoder import TextStreams
from apa_lightning.diffusion.objectives import Model
from apa_lightning.utils.openvino_module import OpenVINOModule

WORDS = 16
"""Texts are padded to a multiple of so many tokens, so that prompts of different lengths have one shape."""
AUDIO = 64
"""Audio prompts of fewer tokens, such as strongly pooled ones, are repeated up to so many. Attention to repeated tokens is the same."""


class OpenVINOUNet:
    """A U-Net's graphs, one for each number of audio prompts.

    Args:
        unet: An ``AudioLDM2UNet2DConditionModel``.
    """

    def __init__(self, unet: Any):
        self.unet = unet
        self.layers: dict[str, Any] = {
            name: module
            for name, module in unet.named_modules()
            if isinstance(module, Attention) and module.is_cross_attention
        }
        self._graphs: dict[tuple[int, ...], OpenVINOModule] = {}

    def predictor(
        self, torchs: Model, text: TextStreams, audio_tokens: Sequence[Tensor], adapted: Container[str]
    ) -> Model:
        """The U-Net under the conditions of one edit: their keys and values are computed at the first call.

        Args:
            torchs: The same by torch, for what OpenVINO cannot do.
            text: Both text streams.
            audio_tokens: One tensor (B, N, D) per installed adapter.
            adapted: Names of the layers that read the language-of-audio stream.
        """
        counts = {name: 1 + len(audio_tokens) * (name in adapted) for name in self.layers}
        graph = self._graphs.setdefault(
            tuple(counts.values()),
            OpenVINOModule(_GivenKeysValues(self.unet, self.layers, counts), "U-Net", (self.unet.config, counts)),
        )
        if not graph.prepare():
            return torchs
        more = -text.encoded.shape[1] % WORDS
        audio_tokens = [one.repeat(1, -(-AUDIO // one.shape[1]), 1) for one in audio_tokens]
        encoded, mask = F.pad(text.encoded, (0, 0, 0, more)), F.pad(text.mask.float(), (0, more))
        pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
        given: dict[tuple, list[Tensor]] = {}  # keys and values of all layers, by the scales alpha that they hold

        def model(latents: Tensor, time: Tensor) -> Tensor:
            if not pairs:
                for name, layer in self.layers.items():
                    of_layer = keys_values(layer, text.generated if name in adapted else encoded, audio_tokens)
                    pairs[name] = [(_in_heads(layer, key), _in_heads(layer, value)) for key, value in of_layer]
            scales = tuple((1.0, *(scales_of(layer) if audio_tokens else ())) for layer in self.layers.values())
            if scales not in given:
                given.clear()
                given[scales] = [
                    one
                    for alphas, of_layer in zip(scales, pairs.values(), strict=True)
                    for alpha, (key, value) in zip(alphas, of_layer, strict=True)
                    for one in (key, alpha * value)
                ]
            times = time.float().expand(len(latents))
            prediction = graph(latents.float(), times, mask, *given[scales])
            return torchs(latents, time) if prediction is None else prediction

        return model


class _GivenKeysValues(nn.Module):
    """The U-Net as a function of tensors alone: latents, times (B,), text mask (B, L), keys and values (B, heads, N, width)."""

    def __init__(self, unet: Any, layers: Mapping[str, Any], counts: Mapping[str, int]):
        super().__init__()
        self.unet, self.layers, self.counts = unet, layers, counts

    def forward(self, latents: Tensor, times: Tensor, mask: Tensor, *flat: Tensor) -> Tensor:
        pairs = iter(zip(flat[::2], flat[1::2], strict=True))
        given = {name: [next(pairs) for _ in range(count)] for name, count in self.counts.items()}
        with ExitStack() as stack:
            for name, layer in self.layers.items():
                stack.enter_context(_processed_by(layer, _given_attention(name)))
            return self.unet(
                latents,
                times,
                encoder_hidden_states=given,
                encoder_hidden_states_1=given,
                encoder_attention_mask_1=mask,
                return_dict=False,
            )[0]


@contextmanager
def _processed_by(layer: Any, processor: Any):
    before = layer.processor
    layer.processor = processor
    try:
        yield
    finally:
        layer.processor = before


def _given_attention(name: str) -> Any:
    """An attention processor that takes the keys and values of its layer in place of the tokens."""

    def process(attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        query = _in_heads(attn, attn.to_q(hidden_states))
        (key, value), *audio = encoder_hidden_states[name]
        if attention_mask is not None:  # (B, 1, N), the same for all heads
            attention_mask = attention_mask.unsqueeze(1)
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask)
        for key, value in audio:
            output = output + F.scaled_dot_product_attention(query, key, value)
        return attn.to_out[0](output.transpose(1, 2).flatten(2))

    return process


def _in_heads(attn: Any, tokens: Tensor) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return tokens.unflatten(-1, (attn.heads, -1)).transpose(1, 2).contiguous()
