"""Patches of filter banks, the encoder on some of them, and the AudioMAE's decoder, which predicts all of them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

DECODER = "decoder.safetensors"
"""File of :class:`PatchDecoder` next to the encoder's."""


class PatchDecoder(nn.Module):
    """Predicts the values of all patches from the tokens of the visible ones.

    Args:
        grid: Patches along time and frequency, N in all.
        tokens: Width D of the encoder.
        values: Values P of a patch.
        width: Width of the decoder's blocks.
        depth: Number of blocks.
        heads: Attention heads of a block.
    """

    positions: Tensor

    def __init__(self, grid: tuple[int, int], tokens: int, values: int, width: int, depth: int, heads: int):
        super().__init__()
        self.sizes: dict[str, Any] = {"grid": list(grid), "tokens": tokens, "values": values}
        self.sizes |= {"width": width, "depth": depth, "heads": heads}
        self.project = nn.Linear(tokens, width)
        self.mask_token = nn.Parameter(0.02 * torch.randn(width))
        self.register_buffer("positions", position_embedding(grid, width), persistent=False)
        self.blocks = nn.Sequential(*(Block(width, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, values)

    def forward(self, tokens: Tensor, seen: Tensor) -> Tensor:
        """Tokens (B, 1 + V, D), the class token first, of patches ``seen`` (B, V) -> values (B, N, P)."""
        hidden = self.project(tokens)
        places = seen[..., None].expand(-1, -1, hidden.shape[-1])
        filled = self.mask_token.expand(len(seen), len(self.positions), -1).scatter(1, places, hidden[:, 1:])
        hidden = torch.cat([hidden[:, :1], filled + self.positions], dim=1)
        return self.predict(self.norm(self.blocks(hidden)[:, 1:]))

    def save(self, path: Path) -> None:
        """Write the weights in half precision, with the sizes in the file's header."""
        weights = {name: value.detach().cpu().half().contiguous() for name, value in self.state_dict().items()}
        save_file(weights, path, metadata={"sizes": json.dumps(self.sizes)})

    @classmethod
    def load(cls, path: Path) -> "PatchDecoder":
        """The decoder that :meth:`save` wrote, in single precision."""
        with safe_open(path, "pt") as file, torch.random.fork_rng(devices=[]):
            decoder = cls(**json.loads(file.metadata()["sizes"]))
            decoder.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})  # noqa: SIM118
        return decoder.eval()


def encode_visible(encoder: Any, banks: Tensor, seen: Tensor) -> Tensor:
    """``encoder.forward_features`` of filter banks (B, 1, T, F) with all patches but ``seen`` (B, V) left out.

    Returns:
        Tokens (B, 1 + V, D), the class token first.
    """
    tokens = encoder.patch_embed(banks) + encoder.pos_embed[:, 1:]
    tokens = tokens.gather(1, seen[..., None].expand(-1, -1, tokens.shape[-1]))
    first = (encoder.cls_token + encoder.pos_embed[:, :1]).expand(len(banks), -1, -1)
    return encoder.norm(encoder.blocks(encoder.norm_pre(torch.cat([first, tokens], dim=1))))


def position_embedding(grid: tuple[int, int], width: int) -> Tensor:
    """Fixed sines and cosines of a patch's place in time and frequency, (N, width), time-major."""
    return build_sincos2d_pos_embed(list(grid), width)


def patches(banks: Tensor, size: int) -> Tensor:
    """Filter banks (B, 1, T, F) -> values (B, N, P = size * size) of their patches, time-major."""
    return banks[:, 0].unfold(1, size, size).unfold(2, size, size).flatten(3).flatten(1, 2)


def unpatched(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """The inverse of :func:`patches` without the channel: values (B, N, P) -> (B, T, F)."""
    size = round(values.shape[-1] ** 0.5)
    return values.unflatten(1, grid).unflatten(3, (size, size)).transpose(2, 3).flatten(3).flatten(1, 2)
