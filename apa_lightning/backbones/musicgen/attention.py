"""Decoupled cross-attention (Eq. 7-8) in MusicGen's decoder layers, through transformers' registry of attention functions.

The model itself stays as it is: its text cross-attention modules carry a :class:`DecoupledAudio`, and the registered function adds
what that one attends to, before the output projection.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from apa_lightning.adapters.attention import AdaptedAttention
from apa_lightning.adapters.base import Adapter, AttentionLayer

NAME, PLACE = "apa_lightning", "audio_prompt"


class DecoupledAudio(AdaptedAttention):
    """The adapters of one layer, and the keys and values of the audio prompts that it attends to."""

    def __init__(self, adapters: Sequence[Adapter], layer_name: str, plain: None = None):
        super().__init__(adapters, layer_name, plain)
        self._memory: list[tuple[Tensor, Tensor]] = []

    def read(self, audio_tokens: Sequence[Tensor]) -> None:
        """Compute the keys and values of audio tokens (B, N, D), one tensor per adapter, once for all following calls."""
        self._memory = []
        for pair, tokens in zip(self.pairs, audio_tokens, strict=bool(audio_tokens)):
            tokens = tokens.to(pair.to_k_ip.weight.dtype)
            self._memory.append((pair.to_k_ip(tokens), pair.to_v_ip(tokens)))

    def attended(self, query: Tensor, scaling: float) -> Any:
        """The scaled sum over audio prompts for queries (B, H, L, d), as (B, L, H, d); 0 where nothing is attended to."""
        total: Any = 0.0
        for scale, pair in zip(self.scales, self._memory, strict=False):
            if scale:
                key, value = (states.to(query).unflatten(-1, (-1, query.shape[-1])).transpose(1, 2) for states in pair)
                total = total + scale * F.scaled_dot_product_attention(query, key, value, scale=scaling).transpose(1, 2)
        return total


class AdaptableLayer:
    """A cross-attention layer of MusicGen in the form of :class:`apa_lightning.adapters.base.AttentionLayer`.

    Args:
        attention: A ``MusicgenAttention``.
        projection: What leads from the text encoder's states to the layer, if there is such a layer.

    Attributes:
        to_k: The map from the text encoder's states to keys: where these are projected first, both maps in one, without bias.
        to_v: The same to values.
    """

    def __init__(self, attention: Any, projection: nn.Linear | None):
        self.attention = attention
        self.to_k, self.to_v = (_both(projection, part) for part in (attention.k_proj, attention.v_proj))

    @property
    def processor(self) -> DecoupledAudio | None:
        """The adapters in the layer."""
        return getattr(self.attention, PLACE, None)

    @processor.setter
    def processor(self, decoupled: DecoupledAudio | None) -> None:
        setattr(self.attention, PLACE, decoupled)


def attention_with_audio(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Any]:
    """Attention as transformers calls it: plain ``sdpa``, and in a layer with adapters what these attend to."""
    output, weights = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    decoupled = getattr(module, PLACE, None)
    if decoupled is not None:
        output = output + decoupled.attended(query, options["scaling"])
    return output, weights


def adaptable_layers(model: Any) -> dict[str, AttentionLayer]:
    """The text cross-attention layers of a ``MusicgenForConditionalGeneration``: ``layers.0.encoder_attn`` and so on."""
    projection = getattr(model, "enc_to_dec_proj", None)
    return {
        f"layers.{number}.encoder_attn": AdaptableLayer(layer.encoder_attn, projection)
        for number, layer in enumerate(model.decoder.model.decoder.layers)
    }


# Without a mask function of the same name, transformers drops padding masks silently.
AttentionInterface.register(NAME, attention_with_audio)
AttentionMaskInterface.register(NAME, sdpa_mask)


def _both(first: nn.Linear | None, second: nn.Linear) -> nn.Linear:
    """One linear map in place of two, without the bias of the first."""
    if first is None:
        return second
    with torch.device("meta"):
        both = nn.Linear(first.in_features, second.out_features, bias=False)
    weight = second.weight.detach().float() @ first.weight.detach().float()
    both.weight = nn.Parameter(weight.to(second.weight), requires_grad=False)
    return both
