"""The edits of a validation: the same held-out clips, prompts and seeds every time."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from apa_lightning.editing.knobs import knobs_of
from apa_lightning.editing.request import EditRequest
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError

INSTRUMENTS = ("piano", "violin", "cello", "flute", "marimba", "organ", "harp", "acoustic guitar")


@dataclass(frozen=True)
class HeldOutClip:
    """A clip of the validation set.

    Attributes:
        key: Its name in the data.
        waveform: (S,) or (2, S), on the CPU.
        labels: AudioSet display names.
    """

    key: str
    waveform: Tensor
    labels: Sequence[str]


@dataclass(frozen=True)
class PlannedEdit:
    """One clip to be edited towards one target; ``text_only`` is the same from noise with alpha = 0, without the audio."""

    clip: HeldOutClip
    target: str
    edited: EditRequest
    text_only: EditRequest


def _default(name: str, value: object) -> Any:
    """A knob of :class:`EditSettings` with another default."""
    return field(default=value, metadata=EditSettings.__dataclass_fields__[name].metadata)


@dataclass(frozen=True, kw_only=True)
class ValidationPlan(EditSettings):
    """The edits of the validation callbacks; the defaults are the backbone's, with fewer steps, for timbre transfer.

    Callbacks with equal plans share their edits, so that nothing is generated twice. All knobs of an edit are settings of
    the plan too.

    Raises:
        InputError: If a value is out of its range.
    """

    num_clips: int = 4
    """Held-out clips per process; clips of a known target and of different ones come first."""
    targets: Sequence[str] = INSTRUMENTS
    """What clips are turned into; a clip's own label is skipped, and neighbors get different targets."""
    targets_per_clip: int = 1
    """Number of targets for each clip."""
    prompt: str = "a recording of a {} solo"
    """Text of the target, which {} stands for."""
    negative_prompt: str = _default("negative_prompt", "a recording of the {} solo")
    """Text that the clips shall not become; {} stands for the clip's own label among the targets, and where that is
    unknown there is no negative prompt."""
    num_inference_steps: int = _default("num_inference_steps", 10)
    """Denoising steps, of backbones that denoise. The paper edits with 50."""
    seed: int = _default("seed", 0)
    """Seed of the initial noise; each edit has its own, derived from it."""
    batch_size: int = 4
    """Edits that are denoised together."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))  # plans from YAML (lists) and Python compare as equal
        for name in ("num_clips", "targets_per_clip", "batch_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"plan.{name}: {getattr(self, name)!r}; give 1 or more.")
        if not self.targets or not all(isinstance(target, str) and target.strip() for target in self.targets):
            raise InputError(f"plan.targets: {list(self.targets)!r}; give at least one target, none of them empty.")
        try:
            super().__post_init__()
        except InputError as error:
            raise InputError(f"plan.{error}") from None
        if self.prompt.count("{}") != 1:
            raise InputError(f"plan.prompt: {self.prompt!r} must contain {{}} exactly once; the target is put there.")
        if self.negative_prompt.count("{}") > 1:
            raise InputError(f"plan.negative_prompt: {self.negative_prompt!r} contains {{}} more than once.")
        if self.sample_rate is not None:
            raise InputError(
                f"plan.sample_rate: {self.sample_rate}; leave it out: edits are compared with clips at the data's rate."
            )

    def edits(
        self, clips: Sequence[HeldOutClip], sample_rate: int, process: int = 0, sampling: str = "diffusion"
    ) -> list[PlannedEdit]:
        """The planned edits.

        Args:
            clips: What is edited.
            sample_rate: Of the clips.
            process: Shifts targets and seeds, so that processes differ.
            sampling: How the backbone generates: knobs of another way are left out.
        """
        knobs = {n: getattr(self, n) for n, (knob, _) in knobs_of(EditSettings).items() if knob.belongs_to(sampling)}
        planned = []
        for i, clip in enumerate(clips):
            number = process * self.num_clips + i
            own = own_targets(clip.labels, self.targets)
            others = [target for target in self.targets if target not in own] or list(self.targets)
            for k in range(min(self.targets_per_clip, len(others))):
                target = others[(number + k) % len(others)]
                planned.append(self._planned(knobs, clip, target, own, sample_rate, number * self.targets_per_clip + k))
        return planned

    def _planned(
        self, knobs: dict[str, Any], clip: HeldOutClip, target: str, own: list[str], sample_rate: int, number: int
    ) -> PlannedEdit:
        negative = self.negative_prompt
        if "{}" in negative:
            negative = negative.replace("{}", own[0]) if own else ""
        edited = EditRequest(
            **knobs
            | {
                "audio": (clip.waveform, sample_rate),
                "id": f"{file_name(clip.key)}-to-{file_name(target)}",
                "prompt": self.prompt.replace("{}", target),
                "negative_prompt": negative,
                "seed": self.seed + number,
            }
        )
        text_only = replace(edited, ap_scale=0.0, ap_scale_end=None, audio_prompts=None, strength=1.0)
        return PlannedEdit(clip, target, edited, text_only)


def own_targets(labels: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The targets that a clip already is: those whose words all occur in one of its labels.

    "Violin, fiddle" is a violin, "Heavy metal" is metal, "Hip hop music" is hip-hop; "Harpsichord" is not a harp.
    """
    spoken = [_words(label) for label in labels]
    return [target for words in spoken for target in targets if _words(target) <= words]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def file_name(text: str) -> str:
    """``text`` as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "clip"
