"""``ap_scale`` (alpha): one number, or numbers for single blocks and layers as in diffusers' ``set_ip_adapter_scale``."""

import math
from collections.abc import Mapping, Sequence

from apa_lightning.adapters.base import AdapterError

Scale = float | Mapping[str, object]


def expand_scale(scale: Scale, layer_names: Sequence[str], knob: str = "ap_scale") -> dict[str, float]:
    """One number per adapted layer.

    Args:
        scale: A number, or a mapping: ``{"down": {"block_2": [0.0, 1.0]}, "up": 0.5}``, or layer name prefixes
            (``{"up_blocks.1": 1.0}``). What a mapping does not name gets 0.
        layer_names: The adapted layers.
        knob: Where the scale comes from, for messages.

    Raises:
        AdapterError: If a number is not finite, a block is unknown, or a list has the wrong length.
    """
    if not isinstance(scale, Mapping):
        return dict.fromkeys(layer_names, _finite(scale, knob))
    result = dict.fromkeys(layer_names, 0.0)
    for prefix, value in _flatten(scale):
        inside = [name for name in layer_names if name == prefix or name.startswith(f"{prefix}.")]
        if not inside:
            blocks = sorted({".".join(name.split(".")[: 1 if name.startswith("mid") else 2]) for name in layer_names})
            raise AdapterError(f"{knob}: no adapted layer in {prefix!r}; blocks with an adapter: {', '.join(blocks)}.")
        if not isinstance(value, Sequence):
            result.update(dict.fromkeys(inside, _finite(value, knob)))
            continue
        modules = list(dict.fromkeys(name.split(".transformer_blocks")[0] for name in inside))
        if len(value) != len(modules):
            raise AdapterError(f"{knob}: {prefix} has {len(modules)} adapted layers, {len(value)} scales were given.")
        for module, number in zip(modules, value, strict=True):
            result.update({n: _finite(number, knob) for n in inside if n == module or n.startswith(f"{module}.")})
    return result


def scale_of_each(scales: Scale | Sequence[Scale], count: int, knob: str = "ap_scale") -> list[Scale]:
    """One scale per adapter from one for all, or from one for each.

    Raises:
        AdapterError: If there is another number of scales than adapters.
    """
    each = list(scales) if isinstance(scales, Sequence) else [scales] * count
    if len(each) != count:
        raise AdapterError(f"{knob}: {len(each)} scales for {count} adapters; give one number, or one per adapter.")
    return each


def scale_between(
    start: Scale | Sequence[Scale], end: Scale | Sequence[Scale], share: float, count: int, layer_names: Sequence[str]
) -> list[Scale]:
    """One scale per adapter, each layer's number on the way between two scales.

    Args:
        start: At share 0; one scale for all adapters or one for each.
        end: At share 1.
        share: How far, from 0 to 1.
        count: Number of adapters.
        layer_names: The adapted layers.

    Raises:
        AdapterError: See :func:`expand_scale` and :func:`scale_of_each`.
    """
    pairs = zip(scale_of_each(start, count), scale_of_each(end, count, "ap_scale_end"), strict=True)
    return [
        {
            name: first + share * (last - first)
            for (name, first), last in zip(
                expand_scale(one, layer_names).items(),
                expand_scale(other, layer_names, "ap_scale_end").values(),
                strict=True,
            )
        }
        for one, other in pairs
    ]


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


def _finite(value: object, knob: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AdapterError(f"{knob}: {value!r} is not a finite number.")
    return float(value)
