"""Proof of editing: timbre transfer on held-out melodies; the target is recognized and the source's tune is kept.

Text alone makes the target and forgets the tune, the source has the tune and is not the target: both scores count together.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from apa_lightning.audio import MelSpec, log_mel, save_audio
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.evaluation.grid import FIG_2
from apa_lightning.pocket.instrument_judge import InstrumentJudge
from apa_lightning.pocket.measures.judge import of_known_instrument
from apa_lightning.pocket.report.edit_trials import Outcome, Trials, recorded_trials, rendered_trials
from apa_lightning.pocket.report.pictures import draw_mels, save_picture
from apa_lightning.pocket.report.scores import Score, mean
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.bootstrap import bootstrap

MOST, FEW = 32, 64  # trials; eight if there are fewer clips
#: The paper's operating point for timbre transfer.
POINT: dict[str, Any] = {"time_pooling": 2, "ap_scale": 0.5, "guidance_scale": 7.5}
SDEDIT = {"ap_scale": 0.0, "strength": 0.75}
#: The grid of Fig. 2 with the point's own values, which are measured anyway: one knob at a time, the others at the point.
SWEEPS: dict[str, tuple[float, ...]] = {
    knob: tuple(sorted({*values, {**SDEDIT, **POINT}[knob]})) for knob, values in FIG_2.items()
}
SYMBOLS = {"time_pooling": "omega", "ap_scale": "alpha", "guidance_scale": "lambda", "strength": "SDEdit strength"}
RECOGNIZED, MARGIN, PITCH = (
    "target recognized by the judge",
    "chroma similarity to the source above the shuffled floor",
    "pitch accuracy to the source",
)
#: What is to be proven: name, field of :class:`Outcome`, target.
PROVEN = (
    (RECOGNIZED, "recognized", ">= 0.6"),
    (MARGIN, "margin", ">= 0.15"),
    ("chroma similarity to the source", "chroma", ""),
    (PITCH, "pitch", ">= 0.5"),
    ("log-mel distance to the truth in nats", "mel_to_truth", ""),
    ("pitch accuracy to the truth", "pitch_to_truth", ""),
)


def measure(subject: Subject) -> list[Score]:
    """Compare the adapter with text alone, SDEdit, no edit and the truth; then vary one knob at a time.

    The clips hold each melody on several instruments; real recordings of a known instrument are edited too. Pictures:
    ``trade_off.png``, ``edits.png``, with ``editing.json`` and some edits as sound.

    Raises:
        InputError: If the folder lacks a part, of the backbone or the judge.
        ValueError: If no melody was rendered on two instruments.
    """
    folder, clips, seed, recordings = subject.folder, subject.clips, subject.seed, subject.recordings
    judge, adapter = InstrumentJudge.from_pretrained(folder), folder / "adapter.safetensors"
    editor = AudioEditor.from_pretrained(folder, adapter if adapter.is_file() else None, folder / "audio_encoder")
    untrained = AudioEditor(editor.backbone, editor.audio_encoder, [editor.backbone.new_adapter(None)])
    most = MOST if len(clips) >= FEW else min(MOST, 8)
    trials = Trials(clips, rendered_trials(clips, most, seed), judge, seed)
    if not len(trials):
        raise ValueError("no melody was rendered on two instruments: configs/pocket/held_out.yaml has renditions")
    bench = Bench(trials, editor)
    scores, outcomes = bench.proof(untrained), bench.outcomes
    if recordings and (named := of_known_instrument(recordings)):
        real = Bench(Trials(recordings, recorded_trials(named, most), judge, seed), editor)
        scores += real.recorded()
        outcomes = outcomes | {f"real recordings: {name}": found for name, found in real.outcomes.items()}
        if subject.pictures is not None:
            real.keep(subject.pictures / "recordings")
    if subject.pictures is not None:
        bench.keep(subject.pictures / "edits")
        draw_trade_off(subject.pictures / "trade_off.png", bench)
        means = {name: as_means(found, seed) for name, found in outcomes.items()}
        write_file(subject.pictures / "editing.json", json.dumps(means, indent=1))
    return scores


class Bench:
    """Systems on the same trials, each run once."""

    def __init__(self, trials: Trials, editor: AudioEditor):
        self.trials, self.editor = trials, editor
        self.made: dict[str, Tensor] = {}
        self.outcomes: dict[str, Outcome] = {}

    def note(self, name: str, make: Callable[[], Tensor]) -> Outcome:
        """The outcome of a system by ``name``; ``make`` gives its waveforms if it is new."""
        if name not in self.outcomes:
            self.made[name] = make()
            self.outcomes[name] = self.trials.outcome(self.made[name])
        return self.outcomes[name]

    def run(self, name: str, **knobs: Any) -> Outcome:
        """The editor's outcome with the operating point's knobs but for ``knobs``."""
        return self.note(name, lambda: self.trials.edit(self.editor, **{**POINT, **knobs}))

    def at(self, knob: str, value: float) -> Outcome:
        """The outcome with one knob at another value; of strength, without the adapter."""
        if POINT.get(knob) == value:
            return self.run("adapter")
        extra = {"ap_scale": 0.0} if knob == "strength" else {}
        return self.run(f"{SYMBOLS[knob]} {value:g}", **{**extra, knob: value})

    def systems(self) -> dict[str, Outcome]:
        """The adapter and what it is compared with."""
        found = {
            "adapter": self.run("adapter"),
            "no negative prompt": self.run("no negative prompt", negative=False),
            "text alone": self.run("text alone", ap_scale=0.0),
            "SDEdit 0.75": self.at("strength", SDEDIT["strength"]),
            "no edit": self.note("no edit", self.trials.sources),
        }
        if all(trial.truth is not None for trial in self.trials.trials):
            found["truth"] = self.note("truth", self.trials.truths)
        return found

    def score(self, name: str, values: np.ndarray, untrained: float | None = None, **more: Any) -> Score:
        """The score of one value per trial; see :meth:`Score.of`."""
        return Score.of("editing", name, values, self.trials.seed, untrained, **more)

    def proof(self, untrained: AudioEditor) -> list[Score]:
        """All that is to be proven, on trials with a truth."""
        systems = self.systems()
        plain = self.note("untrained adapter", lambda: self.trials.edit(untrained, **POINT))
        ours = systems["adapter"]
        equal, strength = self.equal_recognition(ours)
        systems[f"SDEdit {strength:g} (recognized as often)"] = equal
        scores = []
        for name, field, target in PROVEN:
            compared = _means(systems, field) | ({"shuffled": mean(ours.pitch_floor)} if field == "pitch" else {})
            values, without = getattr(ours, field), mean(getattr(plain, field))
            scores.append(self.score(f"adapter: {name}", values, without, compared=compared, target=target))
        for other, found in (("text alone", systems["text alone"]), (f"SDEdit {strength:g}", equal)):
            for name, field in (("chroma similarity", "chroma"), ("pitch accuracy", "pitch")):
                gain = getattr(ours, field) - getattr(found, field)
                scores.append(self.score(f"adapter above {other}: {name}", gain, target="low > 0"))
        return scores + self.swept()

    def equal_recognition(self, ours: Outcome) -> tuple[Outcome, float]:
        """SDEdit at the least strength that is recognized at least as often as ours, or most often, and that strength."""
        found = {strength: self.at("strength", strength) for strength in SWEEPS["strength"]}
        often = {strength: float(outcome.recognized.mean()) for strength, outcome in found.items()}
        enough = [strength for strength in found if often[strength] >= ours.recognized.mean()]
        best = min(enough) if enough else max(found, key=lambda strength: often[strength])
        return found[best], best

    def swept(self) -> list[Score]:
        """One row per value of each knob: chroma above the floor, compared with recognition and pitch."""
        scores = []
        for knob, values in SWEEPS.items():
            for value in values:
                found = self.at(knob, value)
                compared = {"recognized": mean(found.recognized), "pitch": mean(found.pitch)}
                name = f"{SYMBOLS[knob]} {value:g}: chroma similarity above the shuffled floor"
                scores.append(self.score(name, found.margin, compared=compared))
        return scores

    def recorded(self) -> list[Score]:
        """Real recordings: no truth and no targets."""
        systems, scores = self.systems(), []
        for name, field, _ in PROVEN:
            values = getattr(systems["adapter"], field)
            known = values[np.isfinite(values)]
            if name in (RECOGNIZED, MARGIN, PITCH) and len(known):  # a single recording has no floor
                scores.append(self.score(f"adapter, real recordings: {name}", known, compared=_means(systems, field)))
        return scores

    def keep(self, folder: Path, most: int = 8) -> None:
        """Write some edits as sound, and a picture of three of them."""
        names = ("no edit", "adapter", "text alone", "SDEdit strength 0.75", "truth")
        shown = {name: self.made[name] for name in names if name in self.made}
        pairs = [f"{trial.instrument} to {trial.target}" for trial in self.trials.trials]
        for i, pair in enumerate(pairs[:most]):
            for name, waveforms in shown.items():
                file = f"{i:02d}-{pair.replace(' to ', '-to-')}-{name}.wav".replace(" ", "_")
                save_audio(folder / file, waveforms[i], self.trials.clips.sample_rate)
        rows = {name: list(log_mel(waveforms[:3], MelSpec())[:, 0]) for name, waveforms in shown.items()}
        draw_mels(folder / "edits.png", rows, pairs[:3])


def _means(systems: dict[str, Outcome], field: str) -> dict[str, float]:
    """Mean score of every system but the adapter."""
    return {name: mean(getattr(found, field)) for name, found in systems.items() if name != "adapter"}


def as_means(outcome: Outcome, seed: int) -> dict[str, list[float | None]]:
    """Mean and interval of each score of an outcome; null where it was not measured."""
    fields = (*Outcome.__dataclass_fields__, "margin")
    found = {name: bootstrap(getattr(outcome, name), seed) for name in fields}
    return {name: [None if np.isnan(v) else round(v, 4) for v in interval] for name, interval in found.items()}


def draw_trade_off(path: Path, bench: Bench) -> None:
    """Fig. 2 of the paper: transfer against fidelity, one curve per knob, with 95 % intervals."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(11, 4.6), layout="constrained")
    fields = {"margin": "chroma similarity above the shuffled floor", "pitch": PITCH}
    for axis, (field, words) in zip(canvas.subplots(1, 2), fields.items(), strict=True):
        for knob, values in SWEEPS.items():
            points = [bench.at(knob, value) for value in values]
            across = [float(point.recognized.mean()) for point in points]
            found = [bootstrap(getattr(point, field), bench.trials.seed) for point in points]
            spread = np.array([[m - low, high - m] for m, low, high in found]).T
            axis.errorbar(across, [m for m, _, _ in found], spread, marker="o", capsize=2, lw=1, label=SYMBOLS[knob])
            for x, (y, _, _), value in zip(across, found, values, strict=True):
                axis.annotate(f"{value:g}", (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
        for name, marker in (("text alone", "x"), ("no edit", "s"), ("truth", "*")):
            if name in bench.outcomes:
                point = bench.outcomes[name]
                across_, up = point.recognized.mean(), mean(getattr(point, field))
                axis.plot(across_, up, marker, color="black", ms=8, label=name)
        axis.set_xlabel("target recognized by the judge (transfer)")
        axis.set_ylabel(f"{words} (fidelity)")
        axis.set_xlim(-0.05, 1.05)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save_picture(canvas, path, dpi=110)
