"""Trials of timbre transfer: which solos become which instrument, how each system edits them, and what came out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apa_lightning.audio import MelSpec, log_mel, normalise_level
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest
from apa_lightning.metrics import chroma, chroma_cosine, pitch, pitch_accuracy
from apa_lightning.pocket.parts.judge import NAMES, InstrumentJudge
from apa_lightning.pocket.report.figures import Clips

BATCH = 8


@dataclass(frozen=True)
class Trial:
    """A solo and what it shall become.

    Attributes:
        source: number of the clip. instrument: its own. target: another of the eight.
        truth: number of the clip with the same performance on the target; None where there is none.
    """

    source: int
    instrument: str
    target: str
    truth: int | None = None


def rendered_trials(clips: Clips, most: int, seed: int) -> list[Trial]:
    """Up to ``most`` trials on held-out solos whose melody was rendered on the target too; melodies and pairs in turn."""
    melodies: dict[str, dict[str, int]] = {}
    for i, fields in enumerate(clips.metadata):
        if fields.get("kind") == "solo" and fields.get("instrument") in NAMES:
            melodies.setdefault(fields["melody"], {})[fields["instrument"]] = i
    pairs = [(source, target) for source in NAMES for target in NAMES if source != target]
    np.random.default_rng(seed).shuffle(pairs)
    trials = []
    for number in range(most if melodies else 0):
        played = list(melodies.values())[number % len(melodies)]
        possible = [pair for pair in pairs if pair[0] in played and pair[1] in played]
        if possible:
            source, target = possible[number % len(possible)]
            trials.append(Trial(played[source], source, target, played[target]))
    return list(dict.fromkeys(trials))


def recorded_trials(instruments: Mapping[int, str], most: int) -> list[Trial]:
    """One trial for each of the first recordings of a known instrument, the targets in turn."""
    trials = []
    for turn, (number, instrument) in enumerate(list(instruments.items())[:most]):
        others = [name for name in NAMES if name != instrument]
        trials.append(Trial(number, instrument, others[turn % len(others)]))
    return trials


@dataclass(frozen=True)
class Outcome:
    """What one system made of all trials; each array has one figure per trial.

    Attributes:
        recognised: 1 where the judge hears the target. chroma, pitch: similarity and accuracy to the source.
        chroma_floor, pitch_floor: to another trial's source, NaN where there is none. mel_to_truth: mean absolute difference of log-mels, in nats,
            and pitch_to_truth, to the same performance on the target; NaN where there is none.
    """

    recognised: np.ndarray
    chroma: np.ndarray
    chroma_floor: np.ndarray
    pitch: np.ndarray
    pitch_floor: np.ndarray
    mel_to_truth: np.ndarray
    pitch_to_truth: np.ndarray

    @property
    def margin(self) -> np.ndarray:
        """Chroma similarity above that to another trial's source."""
        return self.chroma - self.chroma_floor


class Trials:
    """Trials on clips, their sources measured once."""

    def __init__(self, clips: Clips, trials: Sequence[Trial], judge: InstrumentJudge, seed: int):
        self.clips, self.trials, self.judge, self.seed = clips, list(trials), judge, seed
        self.others = [self._other(i) for i in range(len(self.trials))]

    def __len__(self) -> int:
        return len(self.trials)

    def _other(self, number: int) -> int | None:
        """Clip of the next trial with another recording and another melody; None where there is none."""

        def tune(trial: Trial) -> Any:
            return self.clips.metadata[trial.source]["melody"] if self.clips.metadata else trial.source

        after = [*self.trials[number + 1 :], *self.trials[:number]]
        return next((one.source for one in after if tune(one) != tune(self.trials[number])), None)

    @cached_property
    def _heard(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Chroma and pitch of every clip that is compared with."""
        numbers = {n for trial in self.trials for n in (trial.source, trial.truth) if n is not None}
        return {i: self._hear(self.clips.waveform[i]) for i in sorted(numbers)}

    def _hear(self, waveform: Tensor) -> tuple[np.ndarray, np.ndarray]:
        return chroma(waveform, self.clips.sample_rate), pitch(waveform, self.clips.sample_rate)

    def edit(self, editor: AudioEditor, negative: bool = True, **knobs: Any) -> Tensor:
        """The edits (N, S) by the paper's prompts: "a recording of a [target] solo" against "a recording of the [own] solo"."""
        requests = [
            EditRequest(
                audio=(self.clips.waveform[trial.source], self.clips.sample_rate),
                prompt=f"a recording of a {trial.target} solo",
                negative_prompt=f"a recording of the {trial.instrument} solo" if negative else "",
                seed=self.seed * 1000 + i,
                **knobs,
            )
            for i, trial in enumerate(self.trials)
        ]
        return torch.stack([made.waveform for made in editor.edit(requests, batch_size=BATCH, progress=False)])

    def sources(self) -> Tensor:
        """The sources themselves (N, S): the edit that does nothing."""
        return self.clips.waveform[[trial.source for trial in self.trials]]

    def truths(self) -> Tensor:
        """The same performances on the targets (N, S)."""
        return self.clips.waveform[[trial.truth for trial in self.trials]]  # type: ignore[misc]

    def outcome(self, waveforms: Tensor) -> Outcome:
        """Measure what a system made (N, S)."""
        rows = []
        said = self.judge.names(waveforms)
        for i, (trial, waveform) in enumerate(zip(self.trials, waveforms, strict=True)):
            sound, tune = self._hear(waveform)
            own, other, truth = self._heard[trial.source], self.others[i], (np.nan, np.nan)
            floor = (np.nan, np.nan)
            if other is not None:
                floor = (chroma_cosine(sound, self._heard[other][0]), pitch_accuracy(tune, self._heard[other][1]))
            if trial.truth is not None:
                distance = mel_distance(waveform, self.clips.waveform[trial.truth])
                truth = (distance, pitch_accuracy(tune, self._heard[trial.truth][1]))
            rows.append(
                (
                    float(said[i] == trial.target),
                    chroma_cosine(sound, own[0]),
                    floor[0],
                    pitch_accuracy(tune, own[1]),
                    floor[1],
                    *truth,
                )
            )
        return Outcome(*np.array(rows).T)


def mel_distance(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference of the log-mels of two waveforms (S,) at a peak of 0.5, in nats."""
    mels = log_mel(normalise_level(torch.stack([first, second])), MelSpec())
    return float((mels[0] - mels[1]).abs().mean())
