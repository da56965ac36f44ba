"""Proof of editing: timbre transfer on held-out melodies; the target is recognized and the source's tune is kept.

Text alone makes the target and forgets the tune, the source has the tune and is not the target: both figures count together.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from apa_lightning.audio import MelSpec, log_mel, save_audio
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.evaluation.grid import FIG_2
from apa_lightning.pocket.instrument_judge import InstrumentJudge
from apa_lightning.pocket.measures.judge import of_known_instrument
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.edit_trials import Outcome, Trials, recorded_trials, rendered_trials
from apa_lightning.pocket.report.pictures import draw_mels
from apa_lightning.pocket.report.scores import Score
from apa_lightning.utils.atomic_files import atomic_path
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


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Score]:
    """Compare the adapter with text alone, SDEdit, no edit and the truth; then vary one knob at a time.

    Args:
        folder: A whole pocket backbone with ``judge`` and ``adapter.safetensors``.
        clips: Held-out clips, each melody on several instruments.
        seed: Seed of trials, noise and intervals.
        pictures: Folder for ``trade_off.png``, ``edits.png``, ``editing.json`` and some edits as sound.
        recordings: Real recordings; those of a known instrument are edited too.

    Raises:
        InputError: If ``folder`` lacks a part.
        ValueError: If no melody was rendered on two instruments.
    """
    judge = InstrumentJudge.from_pretrained(folder)
    adapter = folder / "adapter.safetensors"
    editor = AudioEditor.from_pretrained(folder, adapter if adapter.is_file() else None, folder / "audio_encoder")
    untrained = AudioEditor(editor.backbone, editor.audio_encoder, [editor.backbone.new_adapter(None)])
    most = MOST if len(clips) >= FEW else min(MOST, 8)
    trials = Trials(clips, rendered_trials(clips, most, seed), judge, seed)
    if not len(trials):
        raise ValueError("no melody was rendered on two instruments: configs/pocket/held_out.yaml has renditions")
    bench = Bench(trials, editor)
    figures = bench.figures("", untrained, seed)
    outcomes = bench.outcomes
    if recordings is not None and (named := of_known_instrument(recordings)):
        real = Bench(Trials(recordings, recorded_trials(named, most), judge, seed), editor)
        figures += real.recorded(seed)
        outcomes = outcomes | {f"real recordings: {name}": found for name, found in real.outcomes.items()}
        if pictures is not None:
            real.keep(pictures / "recordings")
    if pictures is not None:
        bench.keep(pictures / "edits")
        draw_trade_off(pictures / "trade_off.png", bench, seed)
        with atomic_path(pictures / "editing.json") as temporary:
            temporary.write_text(
                json.dumps({name: as_means(found, seed) for name, found in outcomes.items()}, indent=1)
            )
    return figures


class Bench:
    """Systems on the same trials, each run once."""

    def __init__(self, trials: Trials, editor: AudioEditor):
        self.trials, self.editor = trials, editor
        self.made: dict[str, torch.Tensor] = {}
        self.outcomes: dict[str, Outcome] = {}

    def run(self, name: str, **knobs: Any) -> Outcome:
        """The editor's outcome with the operating point's knobs but for ``knobs``."""
        return self.note(name, lambda: self.trials.edit(self.editor, **{**POINT, **knobs}))

    def note(self, name: str, make: Any) -> Outcome:
        """The outcome of a system by ``name``; ``make`` gives its waveforms if it is new."""
        if name not in self.outcomes:
            self.made[name] = make()
            self.outcomes[name] = self.trials.outcome(self.made[name])
        return self.outcomes[name]

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

    def figures(self, of: str, untrained: AudioEditor, seed: int) -> list[Score]:
        """All that is to be proven, on trials with a truth."""
        systems = self.systems()
        plain = self.note("untrained adapter", lambda: self.trials.edit(untrained, **POINT))
        ours = systems["adapter"]
        equal, strength = self.equal_recognition(ours)
        systems[f"SDEdit {strength:g} (recognised as often)"] = equal
        rows = [
            ("target recognised by the judge", "recognised", ">= 0.6"),
            ("chroma similarity to the source above the shuffled floor", "margin", ">= 0.15"),
            ("chroma similarity to the source", "chroma", ""),
            ("pitch accuracy to the source", "pitch", ">= 0.5"),
            ("log-mel distance to the truth in nats", "mel_to_truth", ""),
            ("pitch accuracy to the truth", "pitch_to_truth", ""),
        ]
        figures = [
            Score(
                "editing",
                f"adapter{of}: {name}",
                *bootstrap(getattr(ours, field), seed),
                len(self.trials),
                float(np.nanmean(getattr(plain, field))),
                {
                    **{
                        other: float(np.nanmean(getattr(found, field)))
                        for other, found in systems.items()
                        if other != "adapter"
                    },
                    **({"shuffled": float(np.nanmean(ours.pitch_floor))} if field == "pitch" else {}),
                },
                target,
            )
            for name, field, target in rows
        ]
        for other, found in (("text alone", systems["text alone"]), (f"SDEdit {strength:g}", equal)):
            for name, field in (("chroma similarity", "chroma"), ("pitch accuracy", "pitch")):
                gain = getattr(ours, field) - getattr(found, field)
                words = f"adapter above {other}{of}: {name}"
                figures.append(Score("editing", words, *bootstrap(gain, seed), len(self.trials), target="low > 0"))
        return figures + self.swept(seed)

    def equal_recognition(self, ours: Outcome) -> tuple[Outcome, float]:
        """SDEdit at the least strength that is recognised at least as often as ours, or most often, and that strength."""
        found = {strength: self.at("strength", strength) for strength in SWEEPS["strength"]}
        often = {strength: float(outcome.recognised.mean()) for strength, outcome in found.items()}
        enough = [strength for strength in found if often[strength] >= ours.recognised.mean()]
        best = min(enough) if enough else max(found, key=lambda strength: often[strength])
        return found[best], best

    def swept(self, seed: int) -> list[Score]:
        """One row per value of each knob: chroma above the floor, with recognition and pitch next to it."""
        figures = []
        for knob, values in SWEEPS.items():
            for value in values:
                found = self.at(knob, value)
                beside = {"recognised": float(found.recognised.mean()), "pitch": float(np.nanmean(found.pitch))}
                name = f"{SYMBOLS[knob]} {value:g}: chroma similarity above the shuffled floor"
                figures.append(Score("editing", name, *bootstrap(found.margin, seed), len(self.trials), None, beside))
        return figures

    def recorded(self, seed: int) -> list[Score]:
        """Real recordings: no truth and no targets."""
        systems, figures = self.systems(), []
        for name, field in (
            ("target recognised by the judge", "recognised"),
            ("chroma similarity to the source above the shuffled floor", "margin"),
            ("pitch accuracy to the source", "pitch"),
        ):
            values = {other: getattr(found, field) for other, found in systems.items()}
            beside = {other: float(np.nanmean(found)) for other, found in values.items() if other != "adapter"}
            known = _known(values["adapter"])
            if not len(known):
                continue  # a single recording has no floor
            words = f"adapter, real recordings: {name}"
            figures.append(Score("editing", words, *bootstrap(known, seed), len(known), None, beside))
        return figures

    def keep(self, folder: Path, most: int = 8) -> None:
        """Some edits as sound, and a picture of three of them."""
        shown: list[str] = [
            name for name in ("no edit", "adapter", "text alone", "SDEdit strength 0.75", "truth") if name in self.made
        ]
        rate = self.trials.clips.sample_rate
        for i, trial in enumerate(self.trials.trials[:most]):
            for name in shown:
                file = f"{i:02d}-{trial.instrument}-to-{trial.target}-{name}.wav".replace(" ", "_")
                save_audio(folder / file, self.made[name][i], rate)
        few = range(min(3, len(self.trials)))
        rows: dict[str, Sequence[torch.Tensor]] = {
            name: [log_mel(self.made[name][i][None], MelSpec())[0, 0] for i in few] for name in shown
        }
        titles = [f"{self.trials.trials[i].instrument} to {self.trials.trials[i].target}" for i in few]
        draw_mels(folder / "edits.png", rows, titles)


def as_means(outcome: Outcome, seed: int) -> dict[str, list[float | None]]:
    """Mean and interval of each figure of an outcome."""
    found = {}
    for name in (*Outcome.__dataclass_fields__, "margin"):
        values = getattr(outcome, name)
        known = _known(values)
        found[name] = [round(value, 4) for value in bootstrap(known, seed)] if len(known) else [None, None, None]
    return found  # type: ignore[return-value]


def draw_trade_off(path: Path, bench: Bench, seed: int) -> None:
    """Fig. 2 of the paper: transfer against fidelity, one curve per knob, with 95 % intervals."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(11, 4.6), layout="constrained")
    for axis, (field, words) in zip(
        canvas.subplots(1, 2),
        (("margin", "chroma similarity above the shuffled floor"), ("pitch", "pitch accuracy to the source")),
        strict=True,
    ):
        for knob, values in SWEEPS.items():
            points = [bench.at(knob, value) for value in values]
            across = [float(point.recognised.mean()) for point in points]
            means = [bootstrap(_known(getattr(point, field)), seed) for point in points]
            spread = np.array([[m - low, high - m] for m, low, high in means]).T
            axis.errorbar(across, [m for m, _, _ in means], spread, marker="o", capsize=2, lw=1, label=SYMBOLS[knob])
            for x, (y, _, _), value in zip(across, means, values, strict=True):
                axis.annotate(f"{value:g}", (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
        for name, marker in (("text alone", "x"), ("no edit", "s"), ("truth", "*")):
            if name in bench.outcomes:
                point = bench.outcomes[name]
                y = float(np.nanmean(getattr(point, field)))
                axis.plot(point.recognised.mean(), y, marker, color="black", ms=8, label=name)
        axis.set_xlabel("target recognised by the judge (transfer)")
        axis.set_ylabel(f"{words} (fidelity)")
        axis.set_xlim(-0.05, 1.05)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=110)


def _known(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]
