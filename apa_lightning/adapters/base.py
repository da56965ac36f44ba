"""The interface of adapters: trained weights for the cross-attention layers of a frozen backbone."""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from apa_lightning.errors import InputError


class AdapterError(InputError):
    """If an adapter file, checkpoint or scale does not fit the backbone."""


class AttentionLayer(Protocol):
    """A cross-attention layer that can be adapted: diffusers' ``Attention`` or a module of the same form."""

    to_k: nn.Linear
    to_v: nn.Linear
    processor: Any


class Adapter(nn.Module, ABC):
    """Base of adapters: a module whose parameters are what training changes.

    An adapter is made without a backbone (``class_path`` in YAML) and gets its weights by :meth:`initialize`.

    Attributes:
        variant: Written into its files; tells which class reads them.
        start_from: Adapter file that an object given by ``class_path`` loads its first weights from.
        name: What an audio prompt calls it by: the stem of its file.
        layer_names: Names of the adapted layers, in the backbone's order; empty before :meth:`initialize`.
        metadata: Conventions of its training, kept in its file.
        backbone_fingerprint: Identity of the backbone's weights, see :meth:`check_backbone`.
    """

    variant: ClassVar[str] = ""
    start_from: str | None = None
    name: str = ""
    layer_names: tuple[str, ...]
    metadata: dict[str, str]
    backbone_fingerprint: Tensor

    @abstractmethod
    def initialize(self, layers: Mapping[str, AttentionLayer], backbone_kind: str = "") -> "Adapter":
        """Create the weights for ``layers`` (name -> layer) of a backbone of this kind; returns ``self``."""

    def project(self, tokens: Tensor) -> Tensor:
        """What the layers' ``to_k_ip`` and ``to_v_ip`` read instead of pooled tokens (B, N, D); by default these themselves.

        It is called once for each tensor, outside the backbone. Zero tokens, which mean no audio prompt, stay zero.
        """
        return tokens

    @abstractmethod
    def pair(self, layer_name: str) -> Any:
        """The module of one layer that holds the linear maps ``to_k_ip`` and ``to_v_ip`` of the audio tokens."""

    @abstractmethod
    def digest(self) -> str:
        """Identity of the weights, for results files."""

    @property
    @abstractmethod
    def is_untrained(self) -> bool:
        """Whether the weights are still those of :meth:`initialize`."""

    @abstractmethod
    def save(self, path: str | os.PathLike, **metadata: object) -> None:
        """Write the weights and the metadata to one file, atomically."""

    @abstractmethod
    def load(self, path: str | os.PathLike) -> "Adapter":
        """Read such a file, all or nothing; returns ``self``.

        Raises:
            FileNotFoundError: If there is no such file.
            AdapterError: If it does not fit the backbone.
        """

    @abstractmethod
    def check(
        self, weights: Mapping[str, Tensor], what: str, metadata: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Raise :class:`AdapterError` unless ``weights`` of the file or checkpoint ``what`` fit."""

    @abstractmethod
    def check_backbone(self, fingerprint: Tensor, what: str, backbone: str) -> None:
        """Raise :class:`AdapterError` unless ``fingerprint`` is that of this adapter's backbone."""
