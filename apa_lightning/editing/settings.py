"""The settings of an edit. Each knob is one field, and everything else that lists knobs reads them from here.

A field carries its default, its check, the way out of a bad value, its symbol in the paper and its role; the docstring below
it is its help. From these fields come the flags of ``predict`` (``--data.ap_scale``), the columns of manifests and of
``results.csv``, the keys of ``results.jsonl``, the knobs that a sweep may try, and the keywords of ``AudioEditor.edit``.
"""

from dataclasses import dataclass
from typing import Any, cast

from apa_lightning.conditioning.pooling import POOLING_CHOICE, is_pooling_rate
from apa_lightning.editing.audio_prompts import PROMPTS_CHOICE, AudioPrompt, are_prompts, read_prompts, shared_by_batch
from apa_lightning.editing.knobs import (
    CROSSFADE,
    SCALE_CHOICE,
    TEXT_CHOICE,
    Text,
    are_numbers,
    are_regions,
    check_knob,
    check_knobs,
    differs,
    is_extension,
    is_interval,
    is_number,
    is_scale,
    is_text,
    is_whole,
    knob,
    knobs_of,
    leaves,
)


@dataclass(frozen=True, kw_only=True)
class EditSettings:
    """All knobs of an edit. Those that are None take the backbone's defaults, see :mod:`apa_lightning.editing.defaults`.

    Raises:
        InputError: If a value is out of its range.
    """

    task: str | None = knob(
        lambda value: is_text(value) and bool(value.strip()),
        "give the name of a task that the backbone knows, or leave it out",
        None,
        batch=differs,
        late=True,
    )
    """Task whose defaults the backbone gives to the knobs that are null: timbre, genre, accompaniment, or others that it names;
    null: its general defaults."""
    negative_prompt: Text | None = knob(is_text, TEXT_CHOICE, None, batch=differs, paper="")
    """Text that the recordings shall not become, c_y- of Eq. 12: "a recording of the piano solo". Left out: the backbone's for the
    task, or none."""
    ap_scale: float | list[Any] | dict[str, Any] | None = knob(
        are_numbers,
        'give a finite number, or numbers for blocks: {"up": 0.5}',
        None,
        paper=0.5,
        symbol="alpha",
        point=True,
        batch=repr,
    )
    """Strength alpha of the audio prompt: a number (0: text alone; below 0: away from the recording, an experiment), a mapping for
    single blocks ({"up": 0.5}), or a list with one of them per adapter; null: the backbone's. Paper: 0.5, genre transfer 0.4."""
    ap_scale_end: float | list[Any] | dict[str, Any] | None = knob(
        are_numbers,
        "give what ap_scale may be, or leave it out: ap_scale then holds for all steps",
        None,
        follows="ap_scale",
        sampling="diffusion",
        symbol="alpha",
        point=True,
        batch=repr,
        late=True,
    )
    """Strength alpha at the last step that is run, in the forms of ap_scale: alpha moves there from ap_scale in equal parts; null:
    ap_scale holds for all steps."""
    time_pooling: int | None = knob(is_pooling_rate, POOLING_CHOICE, None, paper=2, symbol="omega", point=True)
    """Pooling rate omega along time: 1, 2, 4, 8, ... up to one token for the whole window (32 with the pocket's encoder, 64 with
    AudioMAE). It must divide the encoder's grid; a larger one keeps less of the recording. Null: the backbone's. Paper: 2,
    genre transfer 1."""
    freq_pooling: int | None = knob(
        is_pooling_rate, POOLING_CHOICE, None, follows="time_pooling", symbol="omega", point=True
    )
    """Pooling rate along frequency; null: the same as time_pooling, but at most the whole grid (8)."""
    guidance_scale: float | None = knob(
        is_scale,
        "give a number of 0 or more (1 or less: no guidance)",
        None,
        paper=7.5,
        symbol="lambda",
        point=True,
        batch=differs,
    )
    """Guidance scale lambda of Eq. 12 (0 or more), for text and recording; 1 or less: no guidance; null: the backbone's. Paper: 7.5."""
    text_guidance_scale: float | None = knob(
        is_scale,
        SCALE_CHOICE,
        None,
        follows="guidance_scale",
        symbol="lambda_text",
        point=True,
        batch=differs,
        late=True,
    )
    """Guidance scale of the text alone (0 or more); null: as guidance_scale. Larger: more of what the prompt names, less of what
    the negative prompt names. Where the two scales differ, a step computes three branches instead of two."""
    audio_guidance_scale: float | None = knob(
        is_scale,
        SCALE_CHOICE,
        None,
        follows="guidance_scale",
        symbol="lambda_audio",
        point=True,
        batch=differs,
        late=True,
    )
    """Guidance scale of the recording on top of the text (0 or more); null: as guidance_scale. Larger: more of the recording;
    0: as if there were no recording."""
    guidance_interval: tuple[float, float] | None = knob(
        is_interval,
        "give a start and a later end from 0 (pure noise) to 1 (no noise), or leave it out: guidance then holds throughout",
        None,
        follows="guidance_scale",
        sampling="diffusion",
        point=True,
        batch=lambda value: value and tuple(value),
        late=True,
        pair=("start", "end"),
    )
    """Part of the noise schedule in which guidance holds: start and end from 0 (pure noise, the first step) to 1 (no noise, after
    the last one); null: all of it. Outside of it a step computes only the branch with all conditions, which takes less time."""
    num_inference_steps: int | None = knob(
        lambda value: is_whole(value) and 1 <= value <= 1000,
        "give 1 to 1000",
        None,
        paper=50,
        point=True,
        sampling="diffusion",
    )
    """Denoising steps of the whole schedule (1 to 1000); null: the backbone's. Paper: 50."""
    strength: float = knob(
        lambda value: is_number(value) and 0 < value <= 1,
        "give a share above 0, at most 1 (from pure noise)",
        1.0,
        point=True,
        sampling="diffusion",
    )
    """Share of the schedule that is run (above 0, at most 1). 1 starts from pure noise, as the paper; less starts from the recording under noise
    (SDEdit, arXiv 2108.01073) and keeps more of it. The last int(num_inference_steps * strength) steps are run, as in diffusers
    (0.75 of 50: 37), and at least one. With ap_scale 0, 0.75 is the paper's baseline AudioLDM2-SDEdit."""
    scheduler: str | None = knob(
        is_text,
        "give the name of a diffusers scheduler",
        None,
        paper="DDIMScheduler",
        point=True,
        sampling="diffusion",
    )
    """Diffusers scheduler: DDIMScheduler, DDPMScheduler, DEISMultistepScheduler, DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler, EulerAncestralDiscreteScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler, KDPM2DiscreteScheduler, LMSDiscreteScheduler, PNDMScheduler, UniPCMultistepScheduler, or
    the class that the backbone was trained with; null: the backbone's default. Paper: DDIMScheduler."""
    temperature: float | None = knob(
        is_scale,
        "give a number of 0 or more (0: always the most likely code)",
        None,
        paper=1.0,
        point=True,
        late=True,
        sampling="tokens",
    )
    """Temperature of the distribution that codes are drawn from (0 or more), for backbones that draw codes, such as MusicGen: less is
    safer, 0 always takes the most likely code; null: the backbone's, 1 with MusicGen."""
    top_k: int | None = knob(
        lambda value: is_whole(value) and value >= 0,
        "give a whole number of 0 or more (0: all codes)",
        None,
        paper=250,
        point=True,
        late=True,
        sampling="tokens",
    )
    """Number of likeliest codes that one is drawn from (0: all), for the same backbones; null: the backbone's, 250 with MusicGen."""
    window_overlap: float = knob(
        lambda value: is_number(value) and 0 <= value <= 0.75,
        "give a share of a window from 0 to 0.75",
        0.25,
        sampling="diffusion",
        late=True,
    )
    """Share of a window (0 to 0.75) that neighbouring windows have in common at least, where a recording is longer than one. Where
    they overlap, their predictions are cross-faded. Less takes less time."""
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
    audio_prompts: list[Any] | dict[str, Any] | None = knob(
        are_prompts, PROMPTS_CHOICE, None, point=True, batch=shared_by_batch, late=True
    )
    """What the adapters read: a list of entries with the keys audio (a file; left out: the recording that is edited), adapter
    (a loaded one by number or name; left out: the first), ap_scale, ap_scale_end, time_pooling, freq_pooling (left out: the
    edit's), start and end (in seconds: the part that is read); null: every adapter reads the recording."""
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
        check_knobs(self)

    @classmethod
    def check(cls, name: str, value: object) -> None:
        """Raise :class:`InputError` if ``value`` is out of the range of the knob ``name``."""
        check_knob(name, value, *knobs_of(cls)[name])

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of all knobs, in the order of the fields."""
        return tuple(knobs_of(cls))

    @classmethod
    def operating_point(cls) -> tuple[str, ...]:
        """The names of the knobs of an operating point."""
        return tuple(name for name, (knob, _) in knobs_of(cls).items() if knob.point)

    @classmethod
    def symbol(cls, name: str) -> str:
        """The paper's symbol of a knob, or an empty string."""
        return knobs_of(cls)[name][0].symbol

    @property
    def prompt_entries(self) -> list[AudioPrompt]:
        """The entries of ``audio_prompts``; none where it is null."""
        return [] if self.audio_prompts is None else read_prompts(self.audio_prompts)

    @property
    def audio_scales(self) -> list[Any]:
        """The scale alpha of each audio prompt at the first and at the last step; None where that is as the first."""
        own = [(prompt.ap_scale, prompt.ap_scale_end) for prompt in self.prompt_entries] or [(None, None)]
        edit = self.ap_scale, self.ap_scale_end
        return [(start, end) if start is not None else (edit[0], edit[1] if end is None else end) for start, end in own]

    @property
    def guidance(self) -> tuple[float, ...]:
        """Scales of :func:`apa_lightning.diffusion.guidance.guide`: none without guidance, lambda of Eq. 12, or text and audio."""
        text, audio = (
            cast(float, self.guidance_scale if scale is None else scale)  # filled, see EditDefaults
            for scale in (self.text_guidance_scale, self.audio_guidance_scale)
        )
        if text != audio and any(leaves(self.audio_scales)):
            return text, audio
        return (text,) if text > 1 else ()

    @property
    def keeps(self) -> bool:
        """Whether parts of the recording are kept as they are."""
        return self.region is not None or any(self.extend or ())

    @classmethod
    def pairs(cls) -> dict[str, tuple[str, str]]:
        """The columns of knobs that are pairs of numbers, by knob."""
        pairs = {name: knob.pair for name, (knob, _) in knobs_of(cls).items() if knob.pair}
        return {name: (f"{name}_{first}", f"{name}_{second}") for name, (first, second) in pairs.items()}

    @property
    def batch_key(self) -> tuple[object, ...]:
        """What edits of the same length must have in common to be denoised together."""
        shared = (knob.batch(getattr(self, name)) for name, (knob, _) in knobs_of(type(self)).items())
        return (len(self.guidance), *shared)

    @property
    def late_defaults(self) -> tuple[str, ...]:
        """The names of late knobs that have their defaults, see :attr:`Knob.late`."""
        return tuple(
            name
            for name, (knob, default) in knobs_of(type(self)).items()
            if knob.late and getattr(self, name) == default
        )
