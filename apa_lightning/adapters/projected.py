"""A variant of the Audio Prompt Adapter: a projector between the pooled tokens and the layers' keys and values.

Pooled tokens mix melody and timbre. The paper's keys and values are linear maps of them; a non-linear projector can drop what
no linear map separates.
"""

import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.adapters.base import AdapterError, AttentionLayer
from apa_lightning.adapters.files import AdapterFile
from apa_lightning.utils.rng import generator_for

HIDDEN = "projector.hidden.weight"


class ProjectedAdapter(AudioPromptAdapter):
    """The paper's keys and values, which read ``x + W2 gelu(W1 norm(x))`` of each token x instead of x itself.

    All layers share the projector. W2 starts at zero, so that an untrained adapter equals the paper's bit for bit. Nothing in it
    has a bias: zero tokens, which mean no audio prompt, stay zero. At AudioLDM2-large's width of 768 the default projector
    has 4,719,360 weights, in addition to the 21,626,880 of the keys and values.

    Args:
        hidden_width: Rows of W1; ``None`` means four times the tokens' width.
        start_from: Adapter file to start from, or ``embedded``. One of the paper's variant leaves the projector at its
            initialization.
    """

    variant: ClassVar[str] = "projected"

    def __init__(self, hidden_width: int | None = None, start_from: str | None = None):
        super().__init__()
        self.hidden_width, self.start_from = hidden_width, start_from

    def initialize(self, layers: Mapping[str, AttentionLayer], backbone_kind: str = "") -> Self:
        """Start the keys and values as copies and the projector as identity; returns ``self``."""
        if self.hidden_width is not None and self.hidden_width < 1:
            raise AdapterError(f"adapter.hidden_width: {self.hidden_width}; give 1 or more.")
        like = next(iter(layers.values())).to_k
        self.projector = _projector(like.in_features, self.hidden_width or 4 * like.in_features, like.weight.device)
        return super().initialize(layers, backbone_kind)

    def project(self, tokens: Tensor) -> Tensor:
        """The tokens (B, N, D) that the keys and values read."""
        tokens = tokens.to(self.get_parameter(HIDDEN).dtype)
        return tokens + self.projector(tokens)

    @classmethod
    def for_file(cls, file: AdapterFile) -> Self:
        """An adapter without weights, whose projector is as wide as that in ``file``."""
        return cls(
            next((len(value) for key, value in file.weights.items() if key.endswith(HIDDEN) and value.ndim), None)
        )

    def load(self, path: str | os.PathLike | AdapterFile) -> Self:
        """Load an adapter, all or nothing; returns ``self``. The paper's variant leaves the projector as it is."""
        file = path if isinstance(path, AdapterFile) else AdapterFile.read(path)
        if file.metadata.get("variant", AudioPromptAdapter.variant) == AudioPromptAdapter.variant:
            own = self.state_dict()
            projector = {key: own.pop(key) for key in list(own) if key.startswith("projector.")}
            metadata = {**file.metadata, "variant": self.variant}
            file = replace(file, weights=file.named(own.keys()) | projector, metadata=metadata)
        return super().load(file)

    def check(
        self, weights: Mapping[str, Tensor], what: str, metadata: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Raise :class:`AdapterError` unless ``weights`` of the file or checkpoint ``what`` fit by name, shape and value."""
        width, own = weights.get(HIDDEN, torch.empty(0)), self.get_parameter(HIDDEN)
        if width.ndim == 2 and len(width) != len(own):
            raise AdapterError(
                f"{what}: its projector has hidden_width {len(width)}, this one {len(own)}. Give hidden_width {len(width)}."
            )
        super().check(weights, what, metadata)

    def export_published(self, path: str | os.PathLike) -> None:
        """Refuse: the published format has no place for a projector."""
        raise AdapterError(
            f"to: {path}: the published format has no place for the projector of this adapter. Give a .safetensors file."
        )


def _projector(width: int, hidden_width: int, device: torch.device) -> nn.Sequential:
    """Without biases; the last layer is zero, the first is drawn as torch draws linear layers."""
    draw = torch.rand(hidden_width, width, generator=generator_for("projector"), dtype=torch.float32, device="cpu")
    hidden, output = (
        nn.Linear(*size, bias=False, device="meta") for size in ((width, hidden_width), (hidden_width, width))
    )
    hidden.weight = nn.Parameter(((2 * draw - 1) / width**0.5).to(device))
    output.weight = nn.Parameter(torch.zeros(width, hidden_width, device=device, dtype=torch.float32))
    norm = nn.LayerNorm(width, bias=False, device=device, dtype=torch.float32)
    return nn.Sequential(OrderedDict(norm=norm, hidden=hidden, activation=nn.GELU(), output=output))
