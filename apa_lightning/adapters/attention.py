"""Decoupled cross-attention (arXiv 2407.16564, Sec. 3.3, Eq. 7-8): an adapter inside the attention layers of a backbone.

``z = softmax(Q K^T) V + alpha * softmax(Q K_a^T) V_a``, summed before the output projection; queries and outputs are shared
and frozen.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from apa_lightning.adapters.base import Adapter, AdapterError, AttentionLayer
from apa_lightning.adapters.scale import Scale, expand_scale, scale_of_each


class AdaptedAttention:
    """Attention processor of one adapted layer, held so that the backbone's own state dict and parameters stay untouched.

    A subclass computes the layer's output in ``__call__``, whose arguments are those of the layer's own processor.

    Attributes:
        pairs: ``to_k_ip`` and ``to_v_ip`` of each adapter.
        scales: alpha of each adapter.
        plain: The layer's own processor.
    """

    def __init__(self, adapters: Sequence[Adapter], layer_name: str, plain: Any):
        self.pairs = [adapter.pair(layer_name) for adapter in adapters]
        self.scales = [1.0] * len(adapters)
        self.plain = plain


class DecoupledAttention(AdaptedAttention):
    """The arithmetic of diffusers' ``IPAdapterAttnProcessor2_0``.

    Its convention is that audio tokens travel as ``encoder_hidden_states = (text, [tokens, ...])``, see
    :func:`with_audio_tokens`.
    """

    def __init__(self, adapters: Sequence[Adapter], layer_name: str, plain: Any):
        from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

        super().__init__(adapters, layer_name, plain)
        out_features, in_features = self.pairs[0].to_k_ip.weight.shape
        with torch.device("meta"):  # only the arithmetic is wanted: the weights are the adapters' own
            self.attention = IPAdapterAttnProcessor2_0(
                out_features, in_features, num_tokens=[1] * len(self.pairs), scale=1.0
            )
        self.attention.to_k_ip = nn.ModuleList([pair.to_k_ip for pair in self.pairs])
        self.attention.to_v_ip = nn.ModuleList([pair.to_v_ip for pair in self.pairs])

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        """The layer's output (B, L, C); without audio tokens that of the untouched layer."""
        self.attention.scale = self.scales
        processor = self.attention if isinstance(encoder_hidden_states, tuple) else self.plain
        return processor(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def keys_values(layer: Any, text: Tensor, audio_tokens: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Keys and values (B, N, C) of a layer: of its text, then of each audio prompt where the layer is adapted."""
    pairs = [(layer.to_k(text), layer.to_v(text))]
    if audio_tokens and isinstance(layer.processor, AdaptedAttention):
        for pair, tokens in zip(layer.processor.pairs, audio_tokens, strict=True):
            pairs.append((pair.to_k_ip(tokens), pair.to_v_ip(tokens)))
    return pairs


def scales_of(layer: Any) -> list[float]:
    """Alpha of each adapter that is installed in a layer; none where the layer is not adapted."""
    return layer.processor.scales if isinstance(layer.processor, AdaptedAttention) else []


def with_audio_tokens(text: Tensor, audio_tokens: Sequence[Tensor]) -> Any:
    """The ``encoder_hidden_states`` of layers that are adapted by :class:`DecoupledAttention`.

    Args:
        text: The text stream (B, L, W) that the layers attend to by themselves.
        audio_tokens: Pooled audio prompt (B, N, W), one tensor per installed adapter; empty means text only.
    """
    return (text, [tokens.to(text) for tokens in audio_tokens]) if audio_tokens else text


def install(
    layers: Mapping[str, AttentionLayer],
    adapters: Sequence[Adapter],
    kind: type[AdaptedAttention] = DecoupledAttention,
) -> None:
    """Put ``adapters`` into ``layers``, each with scale 1, in place of those installed before; an empty list removes all.

    Args:
        layers: The adapted layers.
        adapters: The adapters.
        kind: Computes the layers' output.
    """
    for name, layer in layers.items():
        own = layer.processor.plain if isinstance(layer.processor, AdaptedAttention) else layer.processor
        layer.processor = kind(adapters, name, own) if adapters else own


def set_scale(layers: Mapping[str, AttentionLayer], scales: Scale | Sequence[Scale]) -> None:
    """Set alpha (``ap_scale``) of every installed adapter.

    Args:
        layers: The adapted layers.
        scales: One scale for all adapters, or one per adapter, in a form of :func:`expand_scale`.

    Raises:
        AdapterError: If a scale is unusable, or none is installed.
    """
    processors = {n: layer.processor for n, layer in layers.items() if isinstance(layer.processor, AdaptedAttention)}
    if not processors:
        raise AdapterError("ap_scale: no adapter is installed.")
    count = len(next(iter(processors.values())).pairs)
    expanded = [expand_scale(scale, tuple(processors)) for scale in scale_of_each(scales, count)]
    for name, processor in processors.items():
        processor.scales = [scale[name] for scale in expanded]


@contextmanager
def applied(
    layers: Mapping[str, AttentionLayer],
    adapters: Sequence[Adapter],
    scales: Scale | Sequence[Scale],
    kind: type[AdaptedAttention] = DecoupledAttention,
) -> Iterator[None]:
    """Install ``adapters`` with ``scales`` inside the block; afterwards the layers are as before: training keeps its alpha."""
    before = {name: layer.processor for name, layer in layers.items()}
    try:
        install(layers, adapters, kind)
        set_scale(layers, scales)
        yield
    finally:
        for name, processor in before.items():
            layers[name].processor = processor
