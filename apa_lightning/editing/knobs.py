"""Knobs: fields of a dataclass that carry their check, the way out of a bad value, their symbol in the paper and their role."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from itertools import chain
from typing import Annotated, Any

from apa_lightning.errors import InputError

#: Text that a setting may lack, but that may also be the word ``null``: a prompt, unlike a path.
Text = Annotated[str, "any text"]


#: Seconds over which what is new fades into what is kept, unless another number is asked for.
CROSSFADE = 0.03


@dataclass(frozen=True)
class Knob:
    """Facts about a field that its type does not say.

    Attributes:
        check: Whether a value can be used; it may raise an :class:`InputError` of its own. None passes without a check where
            it is the default.
        way_out: What to give instead, for the error message.
        symbol: Its name in the paper's equations.
        point: Whether it belongs to an operating point: a task may fix it and a sweep may try values of it.
        batch: What edits must have in common to be denoised together, as a function of the value.
        late: Whether it came after output folders were in use: its default has no part in an edit's key, so that finished
            edits stay finished.
        pair: What the two numbers of a pair are called in columns of their own: ``region_start`` and ``region_end``.
        paper: Its value in the paper, which holds where neither the user nor the backbone sets it: the default of such a
            knob is None, which stands for the backbone's own, see :mod:`apa_lightning.editing.defaults`.
        follows: The knob that decides for it where it is None. It takes the backbone's value only where that one does.
        sampling: The only way of generating that has it, see :data:`apa_lightning.backbones.edit_batch.Sampling`; empty: all.
    """

    check: Callable[[Any], bool]
    way_out: str
    symbol: str = ""
    point: bool = False
    batch: Callable[[Any], object] = lambda value: value
    late: bool = False
    pair: tuple[str, str] | None = None
    paper: Any = None
    follows: str = ""
    sampling: str = ""

    def belongs_to(self, sampling: str) -> bool:
        """Whether backbones that generate in this way have it."""
        return self.sampling in ("", sampling)

    @property
    def is_backbones(self) -> bool:
        """Whether a backbone may store a default of it."""
        return self.paper is not None or bool(self.follows)


def knob(check: Callable[[Any], bool], way_out: str, default: Any = MISSING, **facts: Any) -> Any:
    """Make a dataclass field that carries a :class:`Knob`; without a default the field is required."""
    return field(default=default, metadata={"knob": Knob(check, way_out, **facts)})


def is_text(value: object) -> bool:
    """Whether ``value`` is a string that can be written as UTF-8: one without lone surrogates, which JSON can hold."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_whole(value: object) -> bool:
    """Whether ``value`` is an integer."""
    return isinstance(value, int) and not isinstance(value, bool)


def are_numbers(value: object) -> bool:
    """Whether ``value`` is a finite number, or a mapping or list of nothing else."""
    return all(map(is_number, leaves(value)))


def leaves(value: object) -> Iterator[object]:
    """The values inside of nested mappings and lists."""
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else None
    if parts is None:
        yield value
    else:
        yield from chain.from_iterable(map(leaves, parts))


def is_scale(value: object) -> bool:
    """Whether ``value`` is a finite number of 0 or more."""
    return is_number(value) and value >= 0  # type: ignore[operator]


def is_region(value: object) -> bool:
    """Whether ``value`` is a start and a later end, in seconds."""
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(is_number, value)):
        return False
    return 0 <= value[0] < value[1]


def are_regions(value: object) -> bool:
    """Whether ``value`` is a region, or a list of one or more."""
    return is_region(value) or (isinstance(value, list | tuple) and bool(value) and all(map(is_region, value)))


def is_extension(value: object) -> bool:
    """Whether ``value`` is two numbers of seconds."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(is_number(one) and one >= 0 for one in value)


def is_interval(value: object) -> bool:
    """Whether ``value`` is a start and a later end between 0 and 1."""
    return is_region(value) and value[1] <= 1  # type: ignore[index]


def differs(value: object) -> object:
    """Value of :attr:`Knob.batch` for what each edit of a batch has for itself."""
    return None


TEXT_CHOICE = "give a string of whole characters ('' means unconditional)"
SCALE_CHOICE = "give a number of 0 or more, or leave it out: then it is as guidance_scale"


def knobs_of(kind: type) -> dict[str, tuple[Knob, object]]:
    """The knobs of a class and their defaults, by name."""
    return {one.name: (one.metadata["knob"], one.default) for one in fields(kind) if "knob" in one.metadata}


def check_sampling(settings: object, sampling: str, backbone: str) -> None:
    """Raise :class:`InputError` if a knob is set that a backbone does not have.

    Args:
        settings: A dataclass of knobs.
        sampling: How the backbone generates.
        backbone: What messages call it.
    """
    for name, (knob, default) in knobs_of(type(settings)).items():
        if not knob.belongs_to(sampling) and (value := getattr(settings, name)) != default:
            raise InputError(f"{name}: {value!r}; {backbone} has no such knob: {WHY_MISSING[sampling]}. Leave it out.")


#: Why a backbone that generates in a certain way lacks what belongs to another.
WHY_MISSING = {
    "tokens": "it draws codes one after the other and does not denoise",
    "diffusion": "it denoises and draws no codes",
}


def check_knobs(settings: object) -> None:
    """Raise :class:`InputError` if a knob of a dataclass is out of its range."""
    for name, (knob, default) in knobs_of(type(settings)).items():
        check_knob(name, getattr(settings, name), knob, default)


def check_knob(name: str, value: object, knob: Knob, default: object) -> None:
    """Raise :class:`InputError` if a value is out of the range of a knob."""
    if not (value is None and default is None) and not knob.check(value):
        raise InputError(f"{name}: {value!r}; {knob.way_out}.")
