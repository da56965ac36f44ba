"""Trials of timbre and genre transfer: the solos and their targets, the edits of each system, and their scores.

A target is named by the prompt, or shown by a reference: another tune played on it, which is a second audio prompt.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest
from apa_lightning.evaluation.tasks import Task
from apa_lightning.metrics import ChromaSimilarity, ClapScore, Clip, EditedClip, PitchAccuracy, following_others
from apa_lightning.pocket.instrument_judge import NAMES, InstrumentJudge
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.recordings import of_known_instrument
from apa_lightning.pocket.text.prompts import GENRES, NEGATIVE_PROMPT
from apa_lightning.utils.bootstrap import Interval, means_by_source, resampled

BATCH = 8
#: The paper's tasks and prompts, as in configs/tasks.
TIMBRE = Task("timbre", "a recording of a {target} solo", NAMES, "a recording of the {source} solo")
GENRE = Task("genre", "{target} style music", tuple(GENRES), NEGATIVE_PROMPT)
#: What the prompt says where a reference shows the target.
UNNAMED = "a recording of a solo"
#: In the audio prompts of an operating point: the trial's reference.
REFERENCE = "reference"


@dataclass(frozen=True)
class Trial:
    """A solo and its target."""

    source: int  # Number of the clip
    instrument: str  # Instrument of the clip
    target: str  # Another one of the eight instruments, or a genre
    truth: int | None = None  # Number of the clip with the same performance on the target; None where there is none
    reference: int | None = (
        None  # Number of a clip of another tune on the target; None where the prompt names the target
    )


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


def recorded_trials(instruments: Mapping[int, str], most: int, task: Task = TIMBRE) -> list[Trial]:
    """One trial for each of the first solos of a known instrument, the targets in turn."""
    return [
        Trial(number, instrument, task.targets_for(instrument, turn, 1)[0])
        for turn, (number, instrument) in enumerate(list(instruments.items())[:most])
    ]


def with_references(clips: Clips, trials: Sequence[Trial]) -> list[Trial]:
    """The trials with their targets shown by another tune among the clips; left out are those for which there is none."""
    rendered = {i: fields["instrument"] for i, fields in enumerate(clips.metadata) if fields.get("kind") == "solo"}
    solos = rendered or of_known_instrument(clips)
    found = []
    for turn, trial in enumerate(trials):
        tune = tune_of(clips, trial.source)
        others = [i for i, name in solos.items() if name == trial.target and tune_of(clips, i) != tune]
        if others:
            found.append(replace(trial, reference=others[turn % len(others)]))
    return found


def tune_of(clips: Clips, number: int) -> str | int:
    """What a clip plays: a held-out melody or a recording."""
    return clips.metadata[number]["melody"] if clips.metadata else number


@dataclass(frozen=True)
class Outcome:
    """The scores of one system; each array has one score per trial, NaN where there is nothing to compare with."""

    answer: np.ndarray  # Number of the instrument that the judge names
    recognized: np.ndarray  # 1 where that is the target; NaN of a genre
    chroma: np.ndarray  # Chroma similarity to the source
    chroma_floor: np.ndarray  # Chroma similarity to the source of another trial
    pitch: np.ndarray  # Pitch accuracy against the source
    pitch_floor: np.ndarray  # Pitch accuracy against the source of another trial
    mel_to_truth: np.ndarray  # Mean absolute difference of log-mels to the same performance on the target, in nats
    pitch_to_truth: np.ndarray  # Pitch accuracy against the same performance on the target
    clap: np.ndarray  # Cosine of the CLAP embeddings of edit and prompt

    @property
    def margin(self) -> np.ndarray:
        """Chroma similarity above that to another trial's source."""
        return self.chroma - self.chroma_floor


class Trials:
    """Trials on clips, their sources measured once.

    Args:
        clips: The clips that the trials number.
        trials: The trials.
        judge: Names the instrument of an edit.
        seed: Seed of the noise and of the intervals.
        task: Its prompts are the paper's.
        clap: Compares edit and prompt; None leaves that out.
    """

    def __init__(
        self,
        clips: Clips,
        trials: Sequence[Trial],
        judge: InstrumentJudge,
        seed: int,
        task: Task = TIMBRE,
        clap: ClapScore | None = None,
    ):
        self.clips, self.trials, self.judge, self.seed = clips, list(trials), judge, seed
        self.task, self.clap = task, clap

    def __len__(self) -> int:
        return len(self.trials)

    @cached_property
    def _known(self) -> dict[int, Clip]:
        """Every clip that is compared with; each computes its features once."""
        numbers = {n for trial in self.trials for n in (trial.source, trial.truth) if n is not None}
        return {i: Clip(self.clips.waveform[i], self.clips.sample_rate) for i in sorted(numbers)}

    def tune(self, trial: Trial) -> str | int:
        """What the trial's source plays: a held-out melody or a recording, which several trials may share."""
        return tune_of(self.clips, trial.source)

    @cached_property
    def tunes(self) -> list[str]:
        """What each trial's source plays: intervals resample it whole."""
        return [str(self.tune(trial)) for trial in self.trials]

    def edit(self, editor: AudioEditor, **knobs: Any) -> Tensor:
        """The edits (N, S) by the task's prompts or the references; trial i has the same noise whatever the knobs."""
        requests = []
        for i, trial in enumerate(self.trials):
            texts = self.task.texts(trial.instrument, trial.target)
            given: dict[str, Any] = {name: texts[name] for name in ("prompt", "negative_prompt")} | knobs
            if trial.reference is not None:
                given["prompt"] = UNNAMED
                given["audio_prompts"] = [
                    {**entry, "audio": self._audio(trial.reference)} if entry.get("audio") == REFERENCE else entry
                    for entry in knobs.get("audio_prompts") or [{}]
                ]
            requests.append(EditRequest(audio=self._audio(trial.source), **{"seed": self.seed * 1000 + i, **given}))
        return torch.stack([made.waveform for made in editor.edit(requests, batch_size=BATCH, progress=False)])

    def _audio(self, number: int) -> tuple[Tensor, int]:
        return self.clips.waveform[number], self.clips.sample_rate

    def sources(self) -> Tensor:
        """The sources themselves (N, S): the edit that does nothing."""
        return self.clips.waveform[[trial.source for trial in self.trials]]

    def truths(self) -> Tensor:
        """The same performances on the targets (N, S)."""
        return self.clips.waveform[[trial.truth for trial in self.trials]]  # type: ignore[misc]

    def outcome(self, waveforms: Tensor) -> Outcome:
        """Measure what a system made (N, S)."""
        made = [Clip(waveform, self.clips.sample_rate) for waveform in waveforms]
        own = [self._known[trial.source] for trial in self.trials]
        others = [
            None if other is None else self._known[other.source] for other in following_others(self.trials, self.tune)
        ]
        truths = [None if trial.truth is None else self._known[trial.truth] for trial in self.trials]

        def scores(score: Callable[[EditedClip], float], compared: Sequence[Clip | None]) -> np.ndarray:
            pairs = zip(made, compared, strict=True)
            return np.array([np.nan if other is None else score(EditedClip(one, other)) for one, other in pairs])

        chroma, pitch = ChromaSimilarity().score, PitchAccuracy().score
        named = self.judge.names(waveforms)
        asked = [self.task.texts(trial.instrument, trial.target)["prompt"] for trial in self.trials]
        return Outcome(
            answer=np.array([NAMES.index(name) for name in named]),
            recognized=np.array(
                [
                    float(name == trial.target) if trial.target in NAMES else np.nan
                    for name, trial in zip(named, self.trials, strict=True)
                ]
            ),
            chroma=scores(chroma, own),
            chroma_floor=scores(chroma, others),
            pitch=scores(pitch, own),
            pitch_floor=scores(pitch, others),
            mel_to_truth=scores(lambda edit: mel_distance(edit.edited.waveform, edit.source.waveform), truths),
            pitch_to_truth=scores(pitch, truths),
            clap=np.array(
                [
                    np.nan if self.clap is None else self.clap.score(EditedClip(one, source, text))
                    for one, source, text in zip(made, own, asked, strict=True)
                ]
            ),
        )

    def above_chance(self, outcome: Outcome) -> Interval:
        """Cohen's kappa between the judge's answers and the targets: recognition corrected for chance, (p - c) / (1 - c).

        p is the share of trials whose target the judge names. c is what that share would be if the answers were dealt out to
        the trials at random: the sum over instruments of the share of answers times the share of targets. A judge that names
        one instrument whatever is played has 0, and so have edits that ignore the prompt, however often they happen to be
        right; 1 is every target recognized. Unedited sources have 0 or less, because no target is the source's own instrument.
        """
        targets = np.array([NAMES.index(trial.target) for trial in self.trials])
        one_hot = np.eye(len(NAMES))
        columns = np.column_stack([outcome.recognized, one_hot[outcome.answer], one_hot[targets]])
        means = means_by_source(columns, self.tunes)

        def kappa(drawn: np.ndarray) -> np.ndarray:
            right, answered, asked = np.split(means(drawn), [1, 1 + len(NAMES)], axis=-1)
            chance = (answered * asked).sum(axis=-1)
            with np.errstate(invalid="ignore"):
                return (right[..., 0] - chance) / (1 - chance)

        return resampled(kappa, len(set(self.tunes)), self.seed)


def mel_distance(first: Tensor, second: Tensor) -> float:
    """Mean absolute difference of the log-mels of two waveforms (S,) at a peak of 0.5, in nats."""
    mels = log_mel(normalize_level(torch.stack([first, second])), MelSpec())
    return float((mels[0] - mels[1]).abs().mean())
