"""Which edits a validation makes: the same held-out clips, prompts and seeds every time."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apa_lightning.editing.request import EditRequest
from apa_lightning.errors import InputError

INSTRUMENTS = ("piano", "violin", "cello", "flute", "marimba", "organ", "harp", "acoustic guitar")


@dataclass(frozen=True)
class HeldOutClip:
    """A clip of the validation set.

    Attributes:
        key: its name in the data.
        waveform: mono (S,), on the CPU.
        labels: AudioSet display names.
    """

    key: str
    waveform: Tensor
    labels: Sequence[str]


@dataclass(frozen=True)
class PlannedEdit:
    """One clip to be edited towards one target; ``text_only`` is the same with alpha = 0, so the audio is not heard."""

    clip: HeldOutClip
    target: str
    edited: EditRequest
    text_only: EditRequest


@dataclass(frozen=True)
class ValidationPlan:
    """What the validation callbacks edit, and how; the defaults are the paper's timbre transfer with fewer steps.

    Callbacks with equal plans share their edits, so that nothing is generated twice.

    Attributes:
        num_clips: held-out clips per process; clips of a known target and of different ones come first.
        targets: what clips are turned into; a clip's own label is skipped, and neighbours get different targets.
        targets_per_clip: how many of them for each clip.
        prompt: text of the target; ``{}`` stands for it.
        negative_prompt: ``{}`` stands for the clip's own label among the targets; empty where that is unknown.
        ap_scale: alpha, how strongly the recording is kept.
        time_pooling: omega along time, 1, 2, 4 or 8.
        freq_pooling: omega along frequency; ``null`` means as ``time_pooling``.
        guidance_scale: lambda of Eq. 12.
        num_inference_steps: denoising steps; the paper edits with 50.
        scheduler: name of a diffusers scheduler.
        seed: of the initial noise; each edit has its own, derived from it.
        batch_size: edits that are denoised together.
    """

    num_clips: int = 4
    targets: Sequence[str] = INSTRUMENTS
    targets_per_clip: int = 1
    prompt: str = "a recording of a {} solo"
    negative_prompt: str = "a recording of the {} solo"
    ap_scale: float = 0.5
    time_pooling: int = 2
    freq_pooling: int | None = None
    guidance_scale: float = 7.5
    num_inference_steps: int = 10
    scheduler: str = "DDIMScheduler"
    seed: int = 0
    batch_size: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))  # hashable, so that equal plans find each other
        for name in ("num_clips", "targets_per_clip", "batch_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"plan.{name}: {getattr(self, name)!r}; give 1 or more.")
        if not self.targets or not all(isinstance(target, str) and target.strip() for target in self.targets):
            raise InputError(f"plan.targets: {list(self.targets)!r}; give at least one target, none of them empty.")
        if self.prompt.count("{}") != 1:
            raise InputError(f"plan.prompt: {self.prompt!r} must contain {{}} exactly once; the target is put there.")
        if self.negative_prompt.count("{}") > 1:
            raise InputError(f"plan.negative_prompt: {self.negative_prompt!r} contains {{}} more than once.")
        try:
            self._request(torch.zeros(1), 16_000, "check", "", "", 0)
        except InputError as error:
            raise InputError(f"plan.{error}") from None

    def _request(
        self, waveform: Tensor, sample_rate: int, name: str, prompt: str, negative: str, number: int
    ) -> EditRequest:
        return EditRequest(
            audio=(waveform, sample_rate),
            prompt=prompt,
            negative_prompt=negative,
            ap_scale=self.ap_scale,
            id=name,
            time_pooling=self.time_pooling,
            freq_pooling=self.freq_pooling,
            guidance_scale=self.guidance_scale,
            num_inference_steps=self.num_inference_steps,
            scheduler=self.scheduler,
            seed=self.seed + number,
        )

    def edits(self, clips: Sequence[HeldOutClip], sample_rate: int, process: int = 0) -> list[PlannedEdit]:
        """The edits of ``clips`` at ``sample_rate``; ``process`` shifts targets and seeds, so that processes differ."""
        planned = []
        for i, clip in enumerate(clips):
            number = process * self.num_clips + i
            own = own_targets(clip.labels, self.targets)
            others = [target for target in self.targets if target not in own] or list(self.targets)
            for k in range(min(self.targets_per_clip, len(others))):
                target = others[(number + k) % len(others)]
                planned.append(self._planned(clip, target, own, sample_rate, number * self.targets_per_clip + k))
        return planned

    def _planned(self, clip: HeldOutClip, target: str, own: list[str], sample_rate: int, number: int) -> PlannedEdit:
        negative = self.negative_prompt
        if "{}" in negative:
            negative = negative.replace("{}", own[0]) if own else ""
        name = f"{file_name(clip.key)}-to-{file_name(target)}"
        edited = self._request(clip.waveform, sample_rate, name, self.prompt.replace("{}", target), negative, number)
        return PlannedEdit(clip, target, edited, EditRequest(**{**vars(edited), "ap_scale": 0.0}))


def own_targets(labels: Sequence[str], targets: Sequence[str]) -> list[str]:
    """The targets that a clip already is: all of a target's words occur in one of its labels.

    "Violin, fiddle" is a violin, "Heavy metal" is metal, "Hip hop music" is hip-hop; "Harpsichord" is no harp.
    """
    spoken = [_words(label) for label in labels]
    return [target for words in spoken for target in targets if _words(target) <= words]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def file_name(text: str) -> str:
    """``text`` as part of a file name."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "clip"
