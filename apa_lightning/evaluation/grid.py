"""Grids: values of knobs that an evaluation tries in addition to the operating point."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from apa_lightning.editing.knobs import knobs_of
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.evaluation.systems import Adapter, SDEdit, System
from apa_lightning.evaluation.tasks import POINT

#: Fig. 2 of the paper: one knob at a time, the others at the task's operating point. ``strength`` is SDEdit's.
FIG_2: dict[str, tuple[Any, ...]] = {
    "time_pooling": (1, 2, 4, 8),
    "ap_scale": (0.2, 0.4, 0.6, 0.8, 1.0),
    "guidance_scale": (1.5, 3.5, 5.5, 7.5, 9.5),
    "strength": (0.5, 0.6, 0.7, 0.8, 0.9),
}


def grid_systems(grid: Mapping[str, Sequence[Any]], product: bool = False) -> list[System]:
    """One system for each point of a grid.

    Args:
        grid: Values by knob; ``strength`` is SDEdit's, the others are the adapter's.
        product: Whether to try every combination of the adapter's values instead of one knob at a time.

    Raises:
        InputError: If a knob is unknown, if a value is out of its range, or if a knob has no values.
    """
    if unknown := sorted(set(grid) - set(POINT)):
        raise InputError(f"grid: {', '.join(unknown)} is not a knob; choose from {', '.join(POINT)}.")
    for name, values in grid.items():
        if not isinstance(values, list | tuple) or not values:
            raise InputError(f"grid: {name} needs a list of values.")
        for value in values:
            if value is None and knobs_of(EditSettings)[name][0].paper is not None:
                raise InputError(f"grid: {name}: null is not a value; give numbers or names.")
            try:
                EditSettings.check(name, value)
            except InputError as error:
                raise InputError(f"grid: {error}") from None
    ours = {  # without dict.fromkeys: a mapping of blocks has no hash
        name: [value for i, value in enumerate(values) if value not in values[:i]]
        for name, values in grid.items()
        if name != "strength"
    }
    points = (
        [dict(zip(ours, values, strict=True)) for values in itertools.product(*ours.values())]
        if product and ours
        else [{name: value} for name, values in ours.items() for value in values]
    )
    strengths = dict.fromkeys(grid.get("strength", ()))
    return [*map(Adapter, points), *(SDEdit({"strength": value}) for value in strengths)]
