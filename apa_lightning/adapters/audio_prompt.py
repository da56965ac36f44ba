"""The Audio Prompt Adapter (arXiv 2407.16564, Sec. 3.3): its weights, its initialization and its files.

The state dict carries the key names of the published checkpoint.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self

import safetensors.torch
import torch
from torch import Tensor, nn

from apa_lightning.adapters.base import Adapter, AdapterError, AttentionLayer
from apa_lightning.adapters.files import AdapterFile
from apa_lightning.utils.atomic_files import write_file

FORMAT, FORMAT_VERSION = "apa_lightning.adapter", "1"
#: What :meth:`AudioPromptAdapter.save` adds to an adapter's metadata.
HEADER = ("format", "format_version", "backbone_kind", "backbone_fingerprint", "stream_width", "variant")
#: What the published code does where it differs from the paper; recorded when its checkpoint is imported.
PUBLISHED_CONVENTIONS = {
    "origin": "published checkpoint",
    "dropped_audio": "zero_fbank",
    "condition_dropout": "exclusive",
}


class AudioPromptAdapter(Adapter):
    """The weights ``<layer>.processor.to_k_ip`` and ``to_v_ip``, without bias, of every adapted layer.

    AudioLDM2-large has 32 adapted layers, and so 21,626,880 weights.

    Args:
        layers: The layers to adapt (see :meth:`initialize`); ``None`` leaves that for later.
    """

    variant: ClassVar[str] = "audio_prompt"

    def __init__(self, layers: Mapping[str, AttentionLayer] | None = None):
        super().__init__()
        self.metadata: dict[str, str] = {}
        self.layer_names: tuple[str, ...] = ()
        if layers is not None:
            self.initialize(layers)

    def initialize(self, layers: Mapping[str, AttentionLayer], backbone_kind: str = "") -> Self:
        """Start each pair as a copy of that layer's own ``to_k`` and ``to_v``; returns ``self``."""
        self.layer_names, self.backbone_kind = tuple(layers), backbone_kind
        for name, layer in layers.items():
            pair = nn.Module()
            pair.to_k_ip, pair.to_v_ip = _copy_linear(layer.to_k), _copy_linear(layer.to_v)
            _nest(self, f"{name}.processor", pair)
        self.stream_width = next(iter(layers.values())).to_k.in_features
        self.backbone_fingerprint = _fingerprint(layers)
        self._initial_digest = self.digest()
        return self

    def pair(self, layer_name: str) -> Any:
        """The module that holds ``to_k_ip`` and ``to_v_ip`` of one layer."""
        return self.get_submodule(f"{layer_name}.processor")

    def digest(self) -> str:
        """SHA-256 (12 hex digits) of the weights, for results files."""
        return digest_of(self.state_dict())

    @property
    def is_untrained(self) -> bool:
        """Whether the weights are still the copied initialization."""
        return self.digest() == self._initial_digest

    def save(self, path: str | os.PathLike, **metadata: object) -> None:
        """Write safetensors atomically, with ``metadata`` (step, conventions, ...) and what :meth:`load` checks."""
        header = {**self.metadata, **{key: str(value) for key, value in metadata.items()}}
        header |= {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "backbone_fingerprint": " ".join(f"{value:.5g}" for value in self.backbone_fingerprint.tolist()),
            "stream_width": str(self.stream_width),
            "variant": self.variant,
        }
        if self.backbone_kind:
            header["backbone_kind"] = self.backbone_kind
        weights = {key: value.detach().float().cpu().contiguous() for key, value in self.state_dict().items()}
        # save_file would leave a file that only its owner can read
        write_file(path, safetensors.torch.save(weights, metadata=header))

    @classmethod
    def for_file(cls, file: AdapterFile) -> Self:
        """An adapter without weights that can load ``file``."""
        return cls()

    def load(self, path: str | os.PathLike | AdapterFile) -> Self:
        """Load an adapter, all or nothing; returns ``self``.

        Args:
            path: A file of :meth:`save`, a published ``pytorch_model.bin``, a Trainer's checkpoint, or a folder with one of
                them; or what was read from it.

        Raises:
            FileNotFoundError: If there is no such file.
            AdapterError: If it is for another backbone, lacks a layer or has one too many, has another width, NaN or Inf, or is
                of another variant or a newer format.
        """
        file = path if isinstance(path, AdapterFile) else AdapterFile.read(path)
        weights, metadata = file.named(self.state_dict().keys()), file.metadata
        if (
            metadata.get("format") != FORMAT and "dropped_audio" not in metadata
        ):  # the published checkpoint, perhaps converted by others
            metadata = {**PUBLISHED_CONVENTIONS, "variant": metadata.get("variant", AudioPromptAdapter.variant)}
        self.check(weights, f"adapter: {file.path}", metadata)
        self.load_state_dict(weights)
        self.metadata = {key: value for key, value in metadata.items() if key not in HEADER}
        return self

    def export_published(self, path: str | os.PathLike) -> None:
        """Write the published checkpoint's format: a torch file of the same key names."""
        encoded = io.BytesIO()  # torch turns a full disk into an error of its own; writing bytes does not
        torch.save({key: value.detach().float().cpu() for key, value in self.state_dict().items()}, encoded)
        write_file(path, encoded.getbuffer())

    def check(
        self, weights: Mapping[str, Tensor], what: str, metadata: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Raise :class:`AdapterError` unless ``weights`` of the file or checkpoint ``what`` fit by name, shape and value."""
        if metadata.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise AdapterError(
                f"{what} has format version {metadata['format_version']}; this program reads {FORMAT_VERSION}. "
                "Update apa_lightning."
            )
        kind = metadata.get("backbone_kind", self.backbone_kind)
        if self.backbone_kind and kind != self.backbone_kind:
            raise AdapterError(
                f"{what} belongs to a backbone of the kind {kind}; this one is of the kind {self.backbone_kind}. "
                "Give the backbone it was trained on."
            )
        if (variant := metadata.get("variant", AudioPromptAdapter.variant)) != self.variant:
            raise AdapterError(
                f"{what} holds an adapter of the variant {variant}; this one is of the variant {self.variant}. "
                "Give the file as --model.adapter, which takes the variant from it, or give the run's own adapter."
            )
        own = self.state_dict()
        if missing := sorted(own.keys() - weights.keys()):
            raise AdapterError(
                f"{what} lacks {len(missing)} of {len(own)} weights of this backbone, first {missing[0]}. "
                "It belongs to another backbone or is incomplete."
            )
        if extra := sorted(weights.keys() - own.keys()):
            raise AdapterError(
                f"{what} holds {len(extra)} weights that this backbone lacks, first {extra[0]}. "
                "It belongs to another backbone or another kind of adapter."
            )
        for key, value in own.items():
            if weights[key].shape != value.shape:
                raise AdapterError(
                    f"{what}: {key} has shape {tuple(weights[key].shape)}, this backbone needs {tuple(value.shape)}. "
                    "It belongs to another backbone."
                )
            if not torch.isfinite(weights[key]).all():
                raise AdapterError(f"{what}: {key} contains NaN or Inf. The training that wrote it diverged.")
        if "backbone_fingerprint" in metadata:
            try:
                fingerprint = torch.tensor([float(value) for value in metadata["backbone_fingerprint"].split()])
            except ValueError:
                raise AdapterError(
                    f"{what}: its header's backbone_fingerprint holds no numbers. Save it again."
                ) from None
            self.check_backbone(fingerprint, what, metadata.get("backbone", "another backbone"))

    def check_backbone(self, fingerprint: Tensor, what: str, backbone: str) -> None:
        """Raise :class:`AdapterError` unless ``fingerprint`` is that of this adapter's backbone, in whatever precision."""
        own = self.backbone_fingerprint
        if own.is_meta or (fingerprint.shape == own.shape and (fingerprint - own).norm() <= 0.02 * own.norm()):
            return
        raise AdapterError(
            f"{what} was trained on {backbone}, whose weights differ from this backbone's. Give the backbone it was trained on."
        )


def _copy_linear(linear: nn.Linear) -> nn.Linear:
    copy = nn.Linear(
        linear.in_features, linear.out_features, bias=False, device=linear.weight.device, dtype=torch.float32
    )
    copy.weight = nn.Parameter(linear.weight.detach().clone().float())
    return copy


def _nest(root: nn.Module, path: str, leaf: nn.Module) -> None:
    """Register ``leaf`` under a dotted ``path`` of ``root``, making empty modules on the way."""
    *parents, last = path.split(".")
    for name in parents:
        if not hasattr(root, name):
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    root.add_module(last, leaf)


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 (12 hex digits) of an adapter's weights."""
    if any(weight.is_meta for weight in weights.values()):
        return "meta"
    digest = hashlib.sha256()
    for key, weight in sorted(weights.items()):
        digest.update(key.encode())
        # bfloat16 so that weights keep their identity when they are used in that precision
        digest.update(weight.detach().bfloat16().view(torch.int16).cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _fingerprint(layers: Mapping[str, AttentionLayer]) -> Tensor:
    """Identity of a backbone: the first weights of each text K and V that an adapter starts from.

    Compared with a tolerance, it is the same in every precision.
    """
    parts = [
        getattr(layer, part).weight.detach().flatten()[:4] for layer in layers.values() for part in ("to_k", "to_v")
    ]
    return torch.cat(parts).float().cpu() if not parts[0].is_meta else torch.cat(parts)
