"""The audio prompts of an edit: which recordings the adapters read, each with a scale, pooling rates and a part in time."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, cast

from apa_lightning.adapters.scale import scale_of_each
from apa_lightning.conditioning.pooling import POOLING_CHOICE, is_pooling_rate
from apa_lightning.editing.knobs import are_numbers, check_knobs, is_number, is_whole, knob
from apa_lightning.errors import InputError

if TYPE_CHECKING:
    from apa_lightning.editing.settings import EditSettings

FIELD = "audio_prompts"
ALPHA_CHOICE = 'give a finite number, or numbers for blocks: {"up": 0.5}'
PROMPTS_CHOICE = 'give a list of one or more entries such as {"audio": "other.wav", "ap_scale": 0.3}'


def _is_audio(value: object) -> bool:
    array = isinstance(value, tuple) and len(value) == 2
    return array or hasattr(value, "waveform") or (isinstance(value, str | PathLike) and bool(str(value).strip()))


def _is_alpha(value: object) -> bool:
    return are_numbers(value) and not isinstance(value, list | tuple)


@dataclass(frozen=True, kw_only=True)
class AudioPrompt:
    """One audio prompt of an edit.

    Attributes:
        audio: A file, ``(waveform, sample_rate)`` or a :class:`Recording`; None: the recording that is edited.
        adapter: Which of the loaded adapters reads it: its number, from 0, or its name, the stem of its file.
        ap_scale: Its strength alpha, a number or a mapping for single blocks; None: that of the edit.
        ap_scale_end: The same at the last step; None: as at the first, and that of the edit where ``ap_scale`` is so.
        time_pooling: Its pooling rate along time; None: that of the edit.
        freq_pooling: Its pooling rate along frequency; None: as its ``time_pooling``, or that of the edit where it has none.
        start: Where the part of ``audio`` starts that is read, in seconds; None: at its start.
        end: Where that part ends; None: at its end.

    Raises:
        InputError: If a value is out of its range.
    """

    audio: Any = knob(_is_audio, "give a file, or leave it out for the recording that is edited", None)
    adapter: Any = knob(
        lambda value: (is_whole(value) and value >= 0) or (isinstance(value, str) and bool(value.strip())),
        "give the number of a loaded adapter, from 0, or the stem of its file",
        0,
    )
    ap_scale: Any = knob(_is_alpha, ALPHA_CHOICE, None)
    ap_scale_end: Any = knob(_is_alpha, ALPHA_CHOICE, None, sampling="diffusion")
    time_pooling: Any = knob(is_pooling_rate, POOLING_CHOICE, None)
    freq_pooling: int | None = knob(is_pooling_rate, POOLING_CHOICE, None)
    start: float | None = knob(lambda value: is_number(value) and value >= 0, "give seconds, 0 or more", None)
    end: float | None = knob(lambda value: is_number(value) and value > 0, "give seconds, more than 0", None)

    def __post_init__(self) -> None:
        check_knobs(self)
        if self.end is not None and self.end <= (self.start or 0):
            raise InputError(f"end: {self.end:g} s is not after the start at {self.start or 0:g} s.")


@contextmanager
def of_prompt(number: int, field: str = "") -> Iterator[None]:
    """Inside the block, messages name the field of the audio prompt ``number``: ``audio_prompts[0].start: ...``."""
    try:
        yield
    except (InputError, FileNotFoundError) as error:
        raise type(error)(f"{FIELD}[{number}].{field}{error}") from None


def read_prompts(value: object) -> list[AudioPrompt]:
    """The entries of the setting ``audio_prompts``.

    Raises:
        InputError: If it is not a list of entries, or one of them has an unknown key or a value out of its range.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise InputError(f"{FIELD}: {value!r}; {PROMPTS_CHOICE}.")
    prompts = []
    for number, entry in enumerate(value):
        if not isinstance(entry, Mapping):
            raise InputError(f"{FIELD}[{number}]: {entry!r}; {PROMPTS_CHOICE}.")
        known = [one.name for one in fields(AudioPrompt)]
        with of_prompt(number):
            if unknown := [key for key in entry if key not in known]:
                raise InputError(f"{unknown[0]}: is unknown; choose from {', '.join(known)}.")
            prompts.append(AudioPrompt(**entry))
    return prompts


def are_prompts(value: object) -> bool:
    """Check of the knob: True, or an :class:`InputError` that names the entry."""
    return bool(read_prompts(value))


def shared_by_batch(value: object) -> object:
    """What the audio prompts of edits must have in common to be denoised together: everything but the sound."""
    if value is None:
        return None
    return repr([replace(prompt, audio=None, start=None, end=None) for prompt in read_prompts(value)])


def plain_prompts(value: Any) -> list[dict[str, Any]] | None:
    """The setting as plain values, for a results file."""
    if value is None:
        return None
    names = {tuple: "(array)", type(None): None}
    return [
        {**entry, "audio": names.get(type(audio), str(audio))} for entry in value for audio in (entry.get("audio"),)
    ]


def prompts_for(settings: "EditSettings", adapters: Sequence[str]) -> list[AudioPrompt]:
    """The audio prompts of an edit with all their values; without the setting, every adapter reads the recording.

    Args:
        settings: Of the edit, with the backbone's defaults.
        adapters: Names of the loaded adapters; in the result ``adapter`` is a number.

    Raises:
        InputError: If an adapter is not loaded, or if there is another number of scales than adapters.
    """
    count = len(adapters)
    starts = scale_of_each(cast(Any, settings.ap_scale), count)
    ends = starts if settings.ap_scale_end is None else scale_of_each(settings.ap_scale_end, count, "ap_scale_end")
    if settings.audio_prompts is None:
        prompts = [AudioPrompt(adapter=number) for number in range(count)]
    else:
        prompts = read_prompts(settings.audio_prompts)
    found = []
    for number, prompt in enumerate(prompts):
        with of_prompt(number):
            adapter = _number_of(prompt.adapter, adapters)
        start, end = (starts[adapter], ends[adapter]) if prompt.ap_scale is None else [prompt.ap_scale] * 2
        own = prompt.time_pooling is not None or prompt.freq_pooling is not None
        found.append(
            replace(
                prompt,
                adapter=adapter,
                ap_scale=start,
                ap_scale_end=end if prompt.ap_scale_end is None else prompt.ap_scale_end,
                time_pooling=settings.time_pooling if prompt.time_pooling is None else prompt.time_pooling,
                freq_pooling=prompt.freq_pooling if own else settings.freq_pooling,
            )
        )
    return found


def _number_of(adapter: int | str, names: Sequence[str]) -> int:
    """The number of a loaded adapter."""
    if isinstance(adapter, int) and adapter < len(names):
        return adapter
    if names.count(adapter) == 1:
        return names.index(adapter)
    loaded = ", ".join(f"{number} ({name})" for number, name in enumerate(names))
    if adapter in names:
        raise InputError(f"adapter: {adapter!r} is the name of several; choose a number from {loaded}.")
    raise InputError(f"adapter: {adapter!r} is not loaded; choose from {loaded}, or load it too: `further_adapters`.")
