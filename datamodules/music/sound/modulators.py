"""SoundFont modulators that are known at a note's start: how velocity and key move a region's settings.

Sections 8.2 and 9.5 of the SoundFont Technical Specification 2.04. Controllers (wheels, pedals, pressure) rest at zero
here, so modulators that depend on them add nothing.
"""

import math
from collections.abc import Iterable

# (source, destination generator, amount, second source), as stored.
Modulator = tuple[int, int, int, int]

VELOCITY, KEY = 2, 3
VELOCITY_TO_ATTENUATION = (0x0502, 48, 0)  # source, destination, second source of the default modulators
_CONCAVE, _CONVEX, _SWITCH = 1, 2, 3  # Any other curve is linear.


def identity(modulator: Modulator) -> tuple[int, int, int]:
    """Source, destination and second source: of modulators that share them, the more local one replaces the other."""
    return modulator[0], modulator[1], modulator[3]


def merged(*levels: Iterable[Modulator]) -> tuple[Modulator, ...]:
    """Modulators of several levels, later levels replacing the same ones of earlier levels."""
    known = {identity(modulator): modulator for level in levels for modulator in level}
    return tuple(known.values())


def offset(modulator: Modulator, key: int, velocity: int) -> float:
    """What a modulator adds to its destination for a note."""
    source, _, amount, second = modulator
    return amount * _value(source, key, velocity) * (_value(second, key, velocity) if second else 1.0)


def _value(source: int, key: int, velocity: int) -> float:
    """A source's output: 0 to 1, or -1 to 1 where it is bipolar."""
    index, inputs = source & 0xFF, {VELOCITY: velocity, KEY: key}  # Numbers of controllers have the bit 0x80.
    if index not in inputs:
        return 1.0 if index == 0 else 0.0
    value = 127 - inputs[index] if source & 0x100 else inputs[index]
    if source & 0x200:  # Bipolar.
        half = 2 * value / 127 - 1
        return math.copysign(_curve(source >> 10, abs(half) * 127), half)
    return _curve(source >> 10, value)


def _curve(kind: int, value: float) -> float:
    """Map 0..127 to 0..1 along one of the four curves."""
    if kind == _CONCAVE:
        return 1.0 if value >= 127 else min(1.0, -400 / 960 * math.log10((127 - value) / 127))
    if kind == _CONVEX:
        return 0.0 if value <= 0 else max(0.0, 1 + 400 / 960 * math.log10(value / 127))
    if kind == _SWITCH:
        return 1.0 if value >= 64 else 0.0
    return value / 127
