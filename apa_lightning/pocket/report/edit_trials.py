"""Trials of timbre transfer: the solos and their targets, the edits of each system, and their scores."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest
from apa_lightning.metrics import ChromaSimilarity, Clip, EditedClip, PitchAccuracy, following_others
from apa_lightning.pocket.instrument_judge import NAMES, InstrumentJudge
from apa_lightning.pocket.report.clips import Clips

BATCH = 8


@dataclass(frozen=True)
class Trial:
    """A solo and its target."""

    source: int  # Number of the clip
    instrument: str  # Instrument of the clip
    target: str  # Another one of the eight instruments
    truth: int | None = None  # Number of the clip with the same performance on the target; None where there is none


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
    """The scores of one system; each array has one score per trial, NaN where there is nothing to compare with."""

    recognized: np.ndarray  # 1 where the judge names the target
    chroma: np.ndarray  # Chroma similarity to the source
    chroma_floor: np.ndarray  # Chroma similarity to the source of another trial
    pitch: np.ndarray  # Pitch accuracy against the source
    pitch_floor: np.ndarray  # Pitch accuracy against the source of another trial
    mel_to_truth: np.ndarray  # Mean absolute difference of log-mels to the same performance on the target, in nats
    pitch_to_truth: np.ndarray  # Pitch accuracy against the same performance on the target

    @property
    def margin(self) -> np.ndarray:
        """Chroma similarity above that to another trial's source."""
        return self.chroma - self.chroma_floor


class Trials:
    """Trials on clips, their sources measured once."""

    def __init__(self, clips: Clips, trials: Sequence[Trial], judge: InstrumentJudge, seed: int):
        self.clips, self.trials, self.judge, self.seed = clips, list(trials), judge, seed

    def __len__(self) -> int:
        return len(self.trials)

    @cached_property
    def _known(self) -> dict[int, Clip]:
        """Every clip that is compared with; each computes its features once."""
        numbers = {n for trial in self.trials for n in (trial.source, trial.truth) if n is not None}
        return {i: Clip(self.clips.waveform[i], self.clips.sample_rate) for i in sorted(numbers)}

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

        def tune(trial: Trial) -> Any:
            return self.clips.metadata[trial.source]["melody"] if self.clips.metadata else trial.source

        made = [Clip(waveform, self.clips.sample_rate) for waveform in waveforms]
        own = [self._known[trial.source] for trial in self.trials]
        others = [None if other is None else self._known[other.source] for other in following_others(self.trials, tune)]
        truths = [None if trial.truth is None else self._known[trial.truth] for trial in self.trials]

        def scores(score: Callable[[EditedClip], float], compared: Sequence[Clip | None]) -> np.ndarray:
            pairs = zip(made, compared, strict=True)
            return np.array([np.nan if other is None else score(EditedClip(one, other)) for one, other in pairs])

        chroma, pitch = ChromaSimilarity().score, PitchAccuracy().score
        answers = zip(self.judge.names(waveforms), self.trials, strict=True)
        return Outcome(
            recognized=np.array([float(name == trial.target) for name, trial in answers]),
            chroma=scores(chroma, own),
            chroma_floor=scores(chroma, others),
            pitch=scores(pitch, own),
            pitch_floor=scores(pitch, others),
            mel_to_truth=scores(lambda edit: mel_distance(edit.edited.waveform, edit.source.waveform), truths),
            pitch_to_truth=scores(pitch, truths),
        )


def mel_distance(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference of the log-mels of two waveforms (S,) at a peak of 0.5, in nats."""
    mels = log_mel(normalize_level(torch.stack([first, second])), MelSpec())
    return float((mels[0] - mels[1]).abs().mean())
