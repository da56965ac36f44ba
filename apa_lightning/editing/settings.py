"""The settings of an edit. Each knob is one field, and everything else that lists knobs reads them from here.

A field carries its default, its check, the way out of a bad value, its symbol in the paper and its role; the docstring below
it is its help. From these fields come the flags of ``predict`` (``--data.ap_scale``), the columns of manifests and of
``results.csv``, the keys of ``results.jsonl``, the knobs that a sweep may try, and the keywords of ``AudioEditor.edit``.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from itertools import chain
from typing import Annotated, Any

from apa_lightning.conditioning.pooling import POOLING_CHOICE, is_pooling_rate
from apa_lightning.errors import InputError

#: Text that a setting may lack, but that may also be the word ``null``: a prompt, unlike a path.
Text = Annotated[str, "any text"]


#: Seconds over which what is new fades into what is kept, unless another number is asked for.
CROSSFADE = 0.03


@dataclass(frozen=True)
class Knob:
    """Facts about a field that its type does not say.

    Attributes:
        check: Whether a value can be used. None passes without a check where it is the default.
        way_out: What to give instead, for the error message.
        symbol: Its name in the paper's equations.
        point: Whether it belongs to an operating point: a task may fix it and a sweep may try values of it.
        batch: What edits must have in common to be denoised together, as a function of the value.
        late: Whether it came after output folders were in use: its default has no part in an edit's key, so that finished
            edits stay finished.
        pair: What the two numbers of a pair are called in columns of their own: ``region_start`` and ``region_end``.
    """

    check: Callable[[Any], bool]
    way_out: str
    symbol: str = ""
    point: bool = False
    batch: Callable[[Any], object] = lambda value: value
    late: bool = False
    pair: tuple[str, str] | None = None


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


def differs(value: object) -> object:
    """Value of :attr:`Knob.batch` for what each edit of a batch has for itself."""
    return None


TEXT_CHOICE = "give a string of whole characters ('' means unconditional)"
SCALE_CHOICE = "give a number of 0 or more, or leave it out: then it is as guidance_scale"


@dataclass(frozen=True, kw_only=True)
class EditSettings:
    """All knobs of an edit. The defaults are the paper's operating point for timbre transfer.

    Raises:
        InputError: If a value is out of its range.
    """

    negative_prompt: str = knob(is_text, TEXT_CHOICE, "", batch=differs)
    """Text that the recordings shall not become, c_y- of Eq. 12: "a recording of the piano solo"."""
    ap_scale: float | list[Any] | dict[str, Any] = knob(
        are_numbers,
        'give a finite number, or numbers for blocks: {"up": 0.5}',
        0.5,
        symbol="alpha",
        point=True,
        batch=repr,
    )
    """Strength alpha of the audio prompt: a number (0: text alone), a mapping for single blocks ({"up": 0.5}), or a list with one of them
    per adapter. Paper: 0.5, genre transfer 0.4."""
    ap_scale_end: float | list[Any] | dict[str, Any] | None = knob(
        are_numbers,
        "give what ap_scale may be, or leave it out: ap_scale then holds for all steps",
        None,
        symbol="alpha",
        point=True,
        batch=repr,
        late=True,
    )
    """Strength alpha at the last step that is run, in the forms of ap_scale: alpha moves there from ap_scale in equal parts; null:
    ap_scale holds for all steps."""
    time_pooling: int = knob(is_pooling_rate, POOLING_CHOICE, 2, symbol="omega", point=True)
    """Pooling rate omega along time: 1, 2, 4, 8, ... up to one token for the whole window (32 with the pocket's encoder, 64 with
    AudioMAE). It must divide the encoder's grid; a larger one keeps less of the recording. Paper: 2, genre transfer 1."""
    freq_pooling: int | None = knob(is_pooling_rate, POOLING_CHOICE, None, symbol="omega", point=True)
    """Pooling rate along frequency; null: the same as time_pooling, but at most the whole grid (8)."""
    guidance_scale: float = knob(
        is_scale,
        "give a number of 0 or more (1 or less: no guidance)",
        7.5,
        symbol="lambda",
        point=True,
        batch=differs,
    )
    """Guidance scale lambda of Eq. 12 (0 or more), for text and recording; 1 or less: no guidance. Paper: 7.5."""
    text_guidance_scale: float | None = knob(
        is_scale, SCALE_CHOICE, None, symbol="lambda_text", point=True, batch=differs, late=True
    )
    """Guidance scale of the text alone (0 or more); null: as guidance_scale. Larger: more of what the prompt names, less of what
    the negative prompt names. Where the two scales differ, a step computes three branches instead of two."""
    audio_guidance_scale: float | None = knob(
        is_scale, SCALE_CHOICE, None, symbol="lambda_audio", point=True, batch=differs, late=True
    )
    """Guidance scale of the recording on top of the text (0 or more); null: as guidance_scale. Larger: more of the recording;
    0: as if there were no recording."""
    num_inference_steps: int = knob(
        lambda value: is_whole(value) and 1 <= value <= 1000, "give 1 to 1000", 50, point=True
    )
    """Denoising steps of the whole schedule (1 to 1000). Paper: 50."""
    strength: float = knob(
        lambda value: is_number(value) and 0 < value <= 1,
        "give a share above 0, at most 1 (from pure noise)",
        1.0,
        point=True,
    )
    """Share of the schedule that is run (above 0, at most 1). 1 starts from pure noise, as the paper; less starts from the recording under noise
    (SDEdit, arXiv 2108.01073) and keeps more of it. The last int(num_inference_steps * strength) steps are run, as in diffusers
    (0.75 of 50: 37), and at least one. With ap_scale 0, 0.75 is the paper's baseline AudioLDM2-SDEdit."""
    scheduler: str = knob(is_text, "give the name of a diffusers scheduler", "DDIMScheduler", point=True)
    """Diffusers scheduler: DDIMScheduler, DDPMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler, KDPM2DiscreteScheduler, LMSDiscreteScheduler, PNDMScheduler, UniPCMultistepScheduler, or
    the backbone's own."""
    seed: int = knob(is_whole, "give a whole number", 0, batch=differs)
    """Seed of the initial noise: any whole number."""
    region: tuple[float, float] | list[tuple[float, float]] | None = knob(
        are_regions,
        "give start and end in seconds, the end after the start and the start at 0 or later, or a list of such pairs",
        None,
        batch=differs,
        pair=("start", "end"),
    )
    """Start (0 or later) and end in seconds, or a list of such pairs: only these parts are edited; null: the whole recording.
    Regions that overlap or touch are edited as one."""
    crossfade: float = knob(
        lambda value: is_number(value) and 0 <= value <= 60,
        "give 0 to 60 seconds",
        CROSSFADE,
        batch=differs,
        late=True,
    )
    """Seconds over which what is new fades into what is kept (0 to 60): inside a region, of which it takes at most half, and
    inside the recording where that is extended. Up to 0.03 the fade is linear, longer ones keep the power."""
    extend: tuple[float, float] | None = knob(
        is_extension,
        "give the seconds before and after the recording, each 0 or more",
        None,
        batch=differs,
        late=True,
        pair=("left", "right"),
    )
    """Seconds (0 or more) of new music before and after the recording, which is kept unless a region of it is edited too; null: none."""
    sample_rate: int | None = knob(
        lambda value: is_whole(value) and 4_000 <= value <= 384_000,
        "give 4000 to 384000 Hz, or leave it out for the recording's own",
        None,
        batch=differs,
    )
    """Sample rate of the results in Hz (4000 to 384000); null: the recording's."""
    match_level: bool = knob(lambda value: isinstance(value, bool), "give true or false", True, batch=differs)
    """Give the results the recordings' loudness (RMS), as far as their peaks stay at full scale or below."""

    def __post_init__(self) -> None:
        for name, (knob, default) in _knobs(type(self)).items():
            _check(name, getattr(self, name), knob, default)

    @classmethod
    def check(cls, name: str, value: object) -> None:
        """Raise :class:`InputError` if ``value`` is out of the range of the knob ``name``."""
        _check(name, value, *_knobs(cls)[name])

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all knobs, in the order of the fields."""
        return tuple(_knobs(cls))

    @classmethod
    def operating_point(cls) -> tuple[str, ...]:
        """The names of the knobs of an operating point."""
        return tuple(name for name, (knob, _) in _knobs(cls).items() if knob.point)

    @classmethod
    def symbol(cls, name: str) -> str:
        """The paper's symbol of a knob, or an empty string."""
        return _knobs(cls)[name][0].symbol

    @property
    def guidance(self) -> tuple[float, ...]:
        """Scales of :func:`apa_lightning.diffusion.guidance.guide`: none without guidance, lambda of Eq. 12, or text and audio."""
        text, audio = (
            self.guidance_scale if scale is None else scale
            for scale in (self.text_guidance_scale, self.audio_guidance_scale)
        )
        if text != audio and any(leaves([self.ap_scale, self.ap_scale_end])):
            return text, audio
        return (text,) if text > 1 else ()

    @property
    def keeps(self) -> bool:
        """Whether parts of the recording are kept as they are."""
        return self.region is not None or any(self.extend or ())

    @classmethod
    def pairs(cls) -> dict[str, tuple[str, str]]:
        """The columns of knobs that are pairs of numbers, by knob."""
        pairs = {name: knob.pair for name, (knob, _) in _knobs(cls).items() if knob.pair}
        return {name: (f"{name}_{first}", f"{name}_{second}") for name, (first, second) in pairs.items()}

    @property
    def batch_key(self) -> tuple[object, ...]:
        """What edits of the same length must have in common to be denoised together."""
        shared = (knob.batch(getattr(self, name)) for name, (knob, _) in _knobs(type(self)).items())
        return (len(self.guidance), *shared)

    @property
    def late_defaults(self) -> tuple[str, ...]:
        """The names of late knobs that have their defaults, see :attr:`Knob.late`."""
        return tuple(
            name for name, (knob, default) in _knobs(type(self)).items() if knob.late and getattr(self, name) == default
        )


def _knobs(kind: type[EditSettings]) -> dict[str, tuple[Knob, object]]:
    """The knobs of a class and their defaults, by name."""
    return {one.name: (one.metadata["knob"], one.default) for one in fields(kind) if "knob" in one.metadata}


def _check(name: str, value: object, knob: Knob, default: object) -> None:
    if not (value is None and default is None) and not knob.check(value):
        raise InputError(f"{name}: {value!r}; {knob.way_out}.")
