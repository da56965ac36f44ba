"""Range checks of numeric settings."""

import math
from types import UnionType

from apa_lightning.errors import InputError


def check_range(field: str, value: object, kind: type | UnionType, least: float, most: float = math.inf) -> None:
    """Check the type and range of a number.

    Args:
        field: Name of the setting.
        value: Its value.
        kind: int, int | float, or one of them with None, which is always in range.
        least: Smallest value.
        most: Largest value.

    Raises:
        InputError: If the value is of another type or out of range.
    """
    if isinstance(value, kind) and (value is None or least <= value <= most):  # type: ignore[operator]
        return
    number = "a number" if isinstance(0.5, kind) else "a whole number"
    limits = f"of at least {least}" if most == math.inf else f"between {least} and {most}"
    raise InputError(f"{field}: {value!r}; give {number} {limits}.")
