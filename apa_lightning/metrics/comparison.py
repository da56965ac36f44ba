"""Edits next to what they are compared with: the harness of the validation callbacks, of `evaluate` and of the pocket's proof.

An edit's score says little by itself. It is read against floors: what the text alone makes of the prompt, the untouched
source (``no_op``), and the edit against the source or the prompt of another edit (``shuffled``).
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeVar

import torch
from torch import Tensor

from apa_lightning.editing.source import MIN_SECONDS, SILENCE_PEAK
from apa_lightning.errors import InputError

Item = TypeVar("Item")
Feature = TypeVar("Feature")
Waveforms = Tensor | Sequence[Tensor]


class Clip:
    """A mono recording whose features are computed once, when a metric first asks for them.

    Args:
        waveform: Samples (S,).
        sample_rate: Sample rate in Hz.

    Raises:
        InputError: If the waveform is not mono.
    """

    def __init__(self, waveform: Tensor, sample_rate: int):
        if waveform.ndim != 1:
            raise InputError(
                f"waveform: has shape {tuple(waveform.shape)}; give mono clips (S,), or a batch of them (B, S)."
            )
        self.waveform, self.sample_rate = waveform, sample_rate
        self._features: dict[tuple, object] = {}

    def feature(self, function: Callable[..., Feature], *arguments: Hashable) -> Feature:
        """``function(waveform, sample_rate, *arguments)``, computed at the first such call and kept."""
        key = (function, *arguments)
        if key not in self._features:
            self._features[key] = function(self.waveform, self.sample_rate, *arguments)
        return self._features[key]  # type: ignore[return-value]

    @cached_property
    def problem(self) -> str:
        """See :func:`unmeasurable`."""
        return unmeasurable(self.waveform, self.sample_rate)


@dataclass(frozen=True)
class EditedClip:
    """An edit with all that a metric may compare it with.

    Attributes:
        edited: The edit.
        source: The recording that was edited.
        prompt: The text that the edit should match.
        source_prompt: A text that describes the source, such as "a recording of a piano solo".
        target: The instrument that should be recognized; None where no instrument is asked for.
        joints: Start and end, in seconds of the edit, of each cross-fade between what is new and what is kept.
        lead: Seconds of the edit before the source starts, where it was extended.
    """

    edited: Clip
    source: Clip
    prompt: str = ""
    source_prompt: str = ""
    target: str | None = None
    joints: tuple[tuple[float, float], ...] = ()
    lead: float = 0.0

    @cached_property
    def aligned(self) -> Clip:
        """The edit from where its source starts: what metrics of fidelity compare."""
        if not self.lead:
            return self.edited
        rate = self.edited.sample_rate
        return Clip(self.edited.waveform[round(self.lead * rate) :], rate)


def edited_clips(
    edited: Waveforms,
    source: Waveforms,
    sample_rate: int,
    prompts: Sequence[str] | None = None,
    source_prompts: Sequence[str] | None = None,
) -> list[EditedClip]:
    """Pair B edits with their sources and texts.

    Args:
        edited: Waveforms (B, S), or B waveforms (S,) of any length.
        source: As many waveforms.
        sample_rate: Sample rate of all of them in Hz.
        prompts: B texts that the edits should match; by default empty.
        source_prompts: B texts that describe the sources; by default empty.

    Raises:
        InputError: If the numbers of items differ, or if a waveform is not mono.
    """
    texts = [[""] * len(edited) if given is None else list(given) for given in (prompts, source_prompts)]
    for name, items in (("source", source), ("prompts", texts[0]), ("source_prompts", texts[1])):
        if len(items) != len(edited):
            raise InputError(f"edited and {name}: {len(edited)} and {len(items)} items; give as many of both.")
    return [
        EditedClip(Clip(one, sample_rate), Clip(other, sample_rate), *words)
        for one, other, *words in zip(edited, source, *texts, strict=True)
    ]


def following_others(items: Sequence[Item], identity: Callable[[Item], Hashable]) -> list[Item | None]:
    """For each item the next one of another identity, continuing at the start; None where all share one identity."""
    found = []
    for i, item in enumerate(items):
        following = [*items[i + 1 :], *items[:i]]
        found.append(next((other for other in following if identity(other) != identity(item)), None))
    return found


def with_floors(
    edits: Sequence[EditedClip],
    text_only: Sequence[Clip],
    sources: Sequence[Hashable],
    shuffle: Literal["source", "prompt"] = "source",
) -> dict[str, list[EditedClip]]:
    """The edits and the floors that make their scores readable.

    Args:
        edits: N edits.
        text_only: N clips, what the same prompts make without the recordings.
        sources: Names of the N sources; several edits may share one.
        shuffle: What an edit exchanges with the next edit that has another one: its source, for metrics of fidelity, or
            its prompt, for metrics of transfer.

    Returns:
        ``edited``, ``text_only``, ``no_op`` (the source as if it were the edit) and ``shuffled``, which lacks the edits
        that have no other one to exchange with.
    """
    keys = list(sources) if shuffle == "source" else [edit.prompt for edit in edits]
    others = following_others(range(len(edits)), keys.__getitem__)
    return {
        "edited": list(edits),
        "text_only": [replace(edit, edited=clip) for edit, clip in zip(edits, text_only, strict=True)],
        "no_op": [replace(edit, edited=edit.source) for edit in edits],
        "shuffled": [
            replace(edit, **{shuffle: getattr(edits[other], shuffle)})
            for edit, other in zip(edits, others, strict=True)
            if other is not None
        ],
    }


def unmeasurable(waveform: Tensor, sample_rate: int) -> str:
    """Why a mono waveform (S,) cannot be measured, as the end of a sentence; empty if it can."""
    if len(waveform) < MIN_SECONDS * sample_rate:
        return f"lasts {len(waveform) / sample_rate:.2f} s, less than {MIN_SECONDS} s"
    if not torch.isfinite(waveform).all():
        return "contains NaN or infinite samples"
    return "is digital silence" if float(waveform.abs().max()) < SILENCE_PEAK else ""
