"""AP-Adapter's decoupled cross-attention (arXiv 2407.16564, Sec. 3.3, Eq. 7-8): extra K/V layers that listen to audio.

``z = softmax(Q K^T) V + alpha * softmax(Q K_a^T) V_a``, summed before the output projection. Only the attention layers
that read the U-Net's language-of-audio stream get a pair ``K_a``, ``V_a``; queries and outputs are shared and frozen.
The attention itself is diffusers' ``IPAdapterAttnProcessor2_0``; this file owns which layers are adapted, what is
trained, and the files. The adapter's state dict carries the published checkpoint's own key names.
"""

import hashlib
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import safetensors
import safetensors.torch
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0, IPAdapterAttnProcessor2_0
from torch import Tensor, nn

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import atomic_path
from apa_lightning.utils.pretrained import read_weights

FORMAT, FORMAT_VERSION = "apa_lightning.adapter", "1"
#: What the published code does where it differs from the paper (REFERENCE); recorded when its checkpoint is imported.
PUBLISHED_CONVENTIONS = {
    "origin": "published checkpoint",
    "dropped_audio": "zero_fbank",
    "condition_dropout": "exclusive",
}
Scale = float | Mapping[str, object]


class AdapterError(InputError):
    """An adapter file or scale that does not fit."""


def adapted_layers(unet: nn.Module, stream_width: int) -> dict[str, Attention]:
    """The ``attn2`` layers of ``unet`` whose K/V input is the language-of-audio stream of ``stream_width``.

    Raises:
        AdapterError: there are none, or the second text stream has the same width, so that they cannot be told apart.
    """
    layers = {
        name: module
        for name, module in unet.named_modules()
        if isinstance(module, Attention) and name.endswith("attn2") and module.is_cross_attention
    }
    found = {name: module for name, module in layers.items() if module.to_k.in_features == stream_width}
    if not found:
        raise AdapterError(f"backbone: no cross-attention layer of the U-Net reads {stream_width} channels.")
    if len(found) == len(layers):
        raise AdapterError(
            f"backbone: every cross-attention layer reads {stream_width} channels; the audio stream and the "
            "text stream must have different widths to be told apart."
        )
    return found


class AudioPromptAdapter(nn.Module):
    """The trained weights of one adapter: ``<layer>.processor.to_k_ip`` and ``to_v_ip``, without bias, per layer.

    Args:
        unet: the U-Net to adapt; each pair starts as a copy of that layer's own ``to_k`` / ``to_v``.
        stream_width: channels of the language-of-audio stream (768 on AudioLDM2-large: 32 layers, 21,626,880 weights).
    """

    def __init__(self, unet: nn.Module, stream_width: int):
        super().__init__()
        self.stream_width = stream_width
        self.metadata: dict[str, str] = {}
        layers = adapted_layers(unet, stream_width)
        self.layer_names = tuple(layers)
        for name, layer in layers.items():
            pair = nn.Module()
            pair.to_k_ip, pair.to_v_ip = (_copy_linear(layer.to_k), _copy_linear(layer.to_v))
            _nest(self, f"{name}.processor", pair)
        self.backbone_fingerprint = _fingerprint(layers)
        self._initial_digest = self.digest()

    def pair(self, layer_name: str) -> Any:
        """The module that holds ``to_k_ip`` and ``to_v_ip`` of one layer."""
        return self.get_submodule(f"{layer_name}.processor")

    def digest(self) -> str:
        """SHA-256 (12 hex digits) of the weights, for results files."""
        return _hash(self.state_dict())

    @property
    def is_untrained(self) -> bool:
        """Whether the weights are still the copied initialisation."""
        return self.digest() == self._initial_digest

    def save(self, path: str | os.PathLike, **metadata: object) -> None:
        """Write safetensors atomically, with ``metadata`` (step, conventions, ...) and what :meth:`load` checks."""
        header = {**self.metadata, **{key: str(value) for key, value in metadata.items()}}
        header |= {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "backbone_fingerprint": " ".join(f"{value:.5g}" for value in self.backbone_fingerprint.tolist()),
            "stream_width": str(self.stream_width),
        }
        weights = {key: value.detach().float().cpu().contiguous() for key, value in self.state_dict().items()}
        with atomic_path(path) as temporary:
            # save_file would leave a file that only its owner can read
            temporary.write_bytes(safetensors.torch.save(weights, metadata=header))

    def load(self, path: str | os.PathLike) -> "AudioPromptAdapter":
        """Load a file of :meth:`save` or a published ``pytorch_model.bin``, all or nothing; returns ``self``.

        Raises:
            FileNotFoundError: no such file.
            AdapterError: another backbone, a missing or extra layer, another width, NaN or Inf, or a newer format.
        """
        path = Path(path)
        weights = {key: value for key, value in read_weights(path, "adapter").items()}
        metadata = _read_metadata(path) if path.suffix == ".safetensors" else {}
        if metadata.get("format") != FORMAT:  # the published checkpoint, perhaps converted to safetensors by others
            metadata = PUBLISHED_CONVENTIONS
        self.check(weights, f"adapter: {path}", metadata)
        self.load_state_dict(weights)
        self.metadata = {
            k: v
            for k, v in metadata.items()
            if k not in ("format", "format_version", "backbone_fingerprint", "stream_width")
        }
        return self

    def export_published(self, path: str | os.PathLike) -> None:
        """Write the published checkpoint's format: a torch file of the same key names."""
        encoded = io.BytesIO()  # torch turns a full disk into an error of its own; writing bytes does not
        torch.save({key: value.detach().float().cpu() for key, value in self.state_dict().items()}, encoded)
        with atomic_path(path) as temporary:
            temporary.write_bytes(encoded.getbuffer())

    def check(
        self, weights: Mapping[str, Tensor], what: str, metadata: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Raise :class:`AdapterError` unless ``weights`` of the file or checkpoint ``what`` fit this adapter by name, shape
        and value."""
        if metadata.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
            raise AdapterError(
                f"{what} has format version {metadata['format_version']}; this program reads {FORMAT_VERSION}. "
                "Update apa_lightning."
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
                "It belongs to another backbone."
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


# --- installing -----------------------------------------------------------------------------------------------------


class _Processor:
    """Diffusers' IP-Adapter processor, held so that the U-Net's own state dict and parameters stay untouched.

    The U-Net passes ``encoder_hidden_states = (text (B, L, W), [loa (B, N, W), ...])`` for the audio stream; a plain
    tensor means no audio prompt.
    """

    def __init__(self, adapters: Sequence[AudioPromptAdapter], layer_name: str):
        pairs = [adapter.pair(layer_name) for adapter in adapters]
        out_features, in_features = pairs[0].to_k_ip.weight.shape
        with torch.device("meta"):  # only the arithmetic is wanted: the weights are the adapters' own
            self.attention = IPAdapterAttnProcessor2_0(
                out_features, in_features, num_tokens=[1] * len(pairs), scale=1.0
            )
        self.attention.to_k_ip = nn.ModuleList([pair.to_k_ip for pair in pairs])
        self.attention.to_v_ip = nn.ModuleList([pair.to_v_ip for pair in pairs])
        self.plain = AttnProcessor2_0()

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        processor = self.attention if isinstance(encoder_hidden_states, tuple) else self.plain
        return processor(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def install(unet: nn.Module, adapters: Sequence[AudioPromptAdapter]) -> None:
    """Put ``adapters`` into ``unet``, each with scale 1, replacing those installed before; an empty list removes all."""
    for module in unet.modules():
        if isinstance(module, Attention) and isinstance(module.processor, _Processor):
            cast(Any, module).processor = AttnProcessor2_0()
    if not adapters:
        return
    for name in adapters[0].layer_names:
        cast(Any, unet.get_submodule(name)).processor = _Processor(adapters, name)


def set_scale(unet: nn.Module, scales: Scale | Sequence[Scale]) -> None:
    """Set alpha (``ap_scale``) of every installed adapter.

    Args:
        scales: one scale for all adapters, or one per adapter. A scale is a number, or a mapping for single layers or
            blocks as in diffusers' ``set_ip_adapter_scale``: ``{"down": {"block_2": [0.0, 1.0]}, "up": 0.5}``, or layer
            name prefixes (``{"up_blocks.1": 1.0}``). What a mapping does not name gets 0.

    Raises:
        AdapterError: not finite, an unknown block, a list of the wrong length, or another number of scales than adapters.
    """
    processors = {
        n: m.processor
        for n, m in unet.named_modules()
        if isinstance(m, Attention) and isinstance(m.processor, _Processor)
    }
    if not processors:
        raise AdapterError("ap_scale: no adapter is installed.")
    count = len(next(iter(processors.values())).attention.to_k_ip)
    each = list(scales) if isinstance(scales, Sequence) else [scales] * count
    if len(each) != count:
        raise AdapterError(f"ap_scale: {len(each)} scales for {count} adapters; give one number, or one per adapter.")
    expanded = [expand_scale(scale, tuple(processors)) for scale in each]
    for name, processor in processors.items():
        processor.attention.scale = [scale[name] for scale in expanded]


@contextmanager
def applied(unet: nn.Module, adapters: Sequence[AudioPromptAdapter], scales: Scale | Sequence[Scale]) -> Iterator[None]:
    """Install ``adapters`` with ``scales`` for the block, then put back what was installed: training keeps its own alpha."""
    before = {module: module.processor for module in unet.modules() if isinstance(module, Attention)}
    try:
        install(unet, adapters)
        set_scale(unet, scales)
        yield
    finally:
        for module, processor in before.items():
            module.processor = processor


def expand_scale(scale: Scale, layer_names: Sequence[str]) -> dict[str, float]:
    """One number per adapted layer from any form that :func:`set_scale` accepts."""
    if not isinstance(scale, Mapping):
        return dict.fromkeys(layer_names, _finite(scale))
    result = dict.fromkeys(layer_names, 0.0)
    for prefix, value in _flatten(scale):
        inside = [name for name in layer_names if name == prefix or name.startswith(f"{prefix}.")]
        if not inside:
            blocks = sorted({".".join(name.split(".")[: 1 if name.startswith("mid") else 2]) for name in layer_names})
            raise AdapterError(
                f"ap_scale: no adapted layer in {prefix!r}; blocks with an adapter: {', '.join(blocks)}."
            )
        if not isinstance(value, Sequence):
            result.update(dict.fromkeys(inside, _finite(value)))
            continue
        modules = list(dict.fromkeys(name.split(".transformer_blocks")[0] for name in inside))
        if len(value) != len(modules):
            raise AdapterError(f"ap_scale: {prefix} has {len(modules)} adapted layers, {len(value)} scales were given.")
        for module, number in zip(modules, value, strict=True):
            result.update({name: _finite(number) for name in inside if name.startswith(f"{module}.")})
    return result


def _flatten(scale: Mapping[str, object]) -> list[tuple[str, object]]:
    """``{"down": {"block_2": x}, "mid": y}`` -> ``[("down_blocks.2", x), ("mid_block", y)]``; outer blocks first."""
    flat: list[tuple[str, object]] = []
    for key, value in scale.items():
        name = {"down": "down_blocks", "up": "up_blocks", "mid": "mid_block"}.get(key, key)
        if isinstance(value, Mapping):
            flat += [(f"{name}.{inner.removeprefix('block_')}", number) for inner, number in value.items()]
        else:
            flat.append((name, value))
    return sorted(flat, key=lambda item: item[0].count("."))


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AdapterError(f"ap_scale: {value!r} is not a finite number.")
    return float(value)


# --- details --------------------------------------------------------------------------------------------------------


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


def _hash(weights: Mapping[str, Tensor]) -> str:
    if any(weight.is_meta for weight in weights.values()):
        return "meta"
    digest = hashlib.sha256()
    for key, weight in sorted(weights.items()):
        digest.update(key.encode())
        # bfloat16 so that weights keep their identity when they are used in that precision
        digest.update(weight.detach().bfloat16().view(torch.int16).cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _fingerprint(layers: Mapping[str, Attention]) -> Tensor:
    """Identity of a backbone: the first weights of each text K and V that an adapter starts from. Compared with a
    tolerance, it is the same in every precision."""
    parts = [
        getattr(layer, part).weight.detach().flatten()[:4] for layer in layers.values() for part in ("to_k", "to_v")
    ]
    return torch.cat(parts).float().cpu() if not parts[0].is_meta else torch.cat(parts)


def _read_metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata() or {}
