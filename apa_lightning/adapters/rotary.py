"""Decoupled cross-attention for layers with rotary positions and grouped keys and values (Stable Audio's DiT).

Audio tokens of a long recording come from several windows of the audio encoder, and nothing in a token says from which. A time
code tells: queries and keys are rotated by their places in time (RoPE, arXiv 2104.09864), as MuseControlLite does on the same
backbone (arXiv 2506.18729). It has no parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from apa_lightning.adapters.attention import AdaptedAttention
from apa_lightning.adapters.base import Adapter
from apa_lightning.errors import InputError

#: ``rotary``: queries and keys are rotated. ``rotary_values``: the values too, as in MuseControlLite, which trains an output
#: projection of its own next to them; here it is shared and frozen. ``none``: a token has no place in time.
TimeCode = Literal["rotary", "rotary_values", "none"]
Rotation = tuple[Tensor, Tensor]


def check_time_code(time_code: str) -> None:
    """Raise :class:`InputError` unless a time code is known."""
    if time_code not in get_args(TimeCode):
        raise InputError(f"time_code: {time_code!r} is unknown; choose one of {', '.join(get_args(TimeCode))}.")


@dataclass(frozen=True)
class PlacedTokens:
    """Audio tokens and their places in time, as adapted layers read them.

    Attributes:
        tokens: Pooled audio prompts (B, N, W), one tensor per installed adapter.
        queries: Rotation of the queries.
        keys: Rotation of each prompt's keys.
    """

    tokens: Sequence[Tensor]
    queries: Rotation
    keys: Sequence[Rotation]

    @classmethod
    def over(cls, tokens: Sequence[Tensor], frames: int, span: float, head_dim: int) -> "PlacedTokens":
        """Place tokens in time.

        Pooled tokens are flattened time-major: a token's place in its row is its place in time, to within one pooled step.

        Args:
            tokens: Pooled audio prompts (B, N, W).
            frames: Latent frames of the window; one global token is in front of them.
            span: Latent frames that the tokens of a prompt cover.
            head_dim: Channels of an attention head.
        """
        device = tokens[0].device
        places = torch.arange(-1.0, frames, device=device)
        steps = [(torch.arange(t.shape[1], device=device) + 0.5) * (span / t.shape[1]) - 0.5 for t in tokens]
        return cls(tokens, _rotation(places, head_dim), [_rotation(step, head_dim) for step in steps])


class RotaryDecoupledAttention(AdaptedAttention):
    """Adds the adapters' attention to that of the layer's own processor.

    The output projection has no bias, so that the sum behind it is that of Eq. 8 in front of it. :class:`PlacedTokens` come in
    the place of the text's mask, which this model does not use: it is the only argument that the DiT hands to its layers
    as it is.
    """

    def __init__(self, adapters: Sequence[Adapter], layer_name: str, plain: Any):
        super().__init__(adapters, layer_name, plain)
        self.time_codes = [adapter.metadata.get("time_code", "none") for adapter in adapters]

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        """The layer's output (B, L, C); without audio tokens, or with alpha 0, that of the untouched layer."""
        output = self.plain(attn, hidden_states, encoder_hidden_states, None, rotary_emb)
        if attention_mask is None or not any(self.scales):
            return output
        placed: PlacedTokens = attention_mask
        query = attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
        total = None
        for pair, scale, code, tokens, keys in zip(
            self.pairs, self.scales, self.time_codes, placed.tokens, placed.keys, strict=True
        ):
            if scale == 0:
                continue
            key, value = (_heads(linear(tokens), query) for linear in (pair.to_k_ip, pair.to_v_ip))
            rotated = query
            if code != "none":
                rotated, key = _rotate(query, placed.queries), _rotate(key, keys)
                value = _rotate(value, keys) if code == "rotary_values" else value
            audio = F.scaled_dot_product_attention(rotated, key.to(rotated), value.to(rotated))
            total = scale * audio if total is None else total + scale * audio
        return output + attn.to_out[0](total.transpose(1, 2).flatten(2))  # type: ignore[union-attr]


def _heads(tokens: Tensor, query: Tensor) -> Tensor:
    """Keys or values (B, N, W) by heads, each head repeated for the queries that share it: (B, heads, N, d)."""
    heads = tokens.unflatten(-1, (-1, query.shape[-1])).transpose(1, 2)
    return heads.repeat_interleave(query.shape[1] // heads.shape[1], dim=1)


def _rotation(places: Tensor, head_dim: int) -> Rotation:
    from diffusers.models.embeddings import get_1d_rotary_pos_embed

    return get_1d_rotary_pos_embed(head_dim, places, use_real=True, repeat_interleave_real=False)  # type: ignore[arg-type]


def _rotate(heads: Tensor, rotation: Rotation) -> Tensor:
    from diffusers.models.embeddings import apply_rotary_emb

    return apply_rotary_emb(heads, rotation, use_real_unbind_dim=-2)  # type: ignore[arg-type, return-value]
