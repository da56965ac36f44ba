"""A bench: systems that edit the same trials, their outcomes, the fronts of their operating points, and how they are written down."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from apa_lightning.audio import MelSpec, log_mel, save_audio
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.pocket.report.edit_trials import Outcome, Trials
from apa_lightning.pocket.report.fronts import above_at_equal_recognition
from apa_lightning.pocket.report.pictures import draw_fronts, draw_mels
from apa_lightning.pocket.report.proof import OF_TEXT, Proof
from apa_lightning.pocket.report.scores import Score, mean
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.bootstrap import Interval, bootstrap_by_source

HELD_OUT, REAL, GENRES = "held-out melodies", "real recordings", "genre transfer"
SHOWN = 8  # edits that are kept as sound
COPY = "untrained copy"
SYMBOLS = {
    "time_pooling": "omega",
    "ap_scale": "alpha",
    "guidance_scale": "lambda",
    "num_inference_steps": "steps",
    "negative_prompt": "negative prompt",
}


class Bench:
    """Systems on the same trials, each run once.

    Args:
        name: Name of the trials.
        trials: The trials.
        editors: Editors with an adapter by name; the first is the one to be proven.
        points: Operating points of the adapters; the first is the one of the table.
        proof: All other settings.
        part: Part of the report that its rows belong to.
    """

    def __init__(
        self,
        name: str,
        trials: Trials,
        editors: dict[str, AudioEditor],
        points: Sequence[dict[str, Any]],
        proof: Proof,
        part: str = "editing",
    ):
        self.name, self.trials, self.editors, self.points = name, trials, editors, points
        self.settings, self.part = proof, part
        self.made: dict[str, Tensor] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.fronts: dict[str, list[str]] = {}
        self.ours = next(iter(editors))

    def note(self, name: str, make: Callable[[], Tensor]) -> Outcome:
        """The outcome of a system by ``name``; ``make`` gives its waveforms if it is new."""
        if name not in self.outcomes:
            start, waveforms = time.monotonic(), make()
            self.made[name], found = waveforms[:SHOWN].clone(), self.trials.outcome(waveforms)
            self.outcomes[name] = found
            told = {field: round(mean(getattr(found, field)), 2) for field in ("recognized", "pitch", "margin", "clap")}
            words = ", ".join(f"{field} {value}" for field, value in told.items() if not np.isnan(value))
            rank_zero_info(f"{self.name}, {name}: {words} ({time.monotonic() - start:.0f} s)")
        return self.outcomes[name]

    def run(self, system: str, name: str, knobs: dict[str, Any]) -> Outcome:
        """The outcome of one point of a system's front."""
        if self.settings.num_inference_steps is not None:
            knobs = {"num_inference_steps": self.settings.num_inference_steps, **knobs}
        if name not in self.fronts.setdefault(system, []):
            self.fronts[system].append(name)
        editor = self.editors.get(system, self.editors[self.ours])
        return self.note(name, lambda: self.trials.edit(editor, **knobs))

    def front(self, system: str) -> list[Outcome]:
        """The outcomes of an adapter at all points."""
        return [self.run(system, f"{system} {words(point)}".strip(), point) for point in self.points]

    @property
    def text(self) -> dict[str, Any]:
        """Knobs of the first point without those of the audio prompt."""
        return {"ap_scale": 0.0, **{name: value for name, value in self.points[0].items() if name in OF_TEXT}}

    def sdedit(self) -> list[Outcome]:
        """The outcomes of SDEdit with the first point's guidance; starting from noise alone it is text alone."""
        strengths = self.settings.strengths
        found = [self.run("SDEdit", f"SDEdit {value:g}", {**self.text, "strength": value}) for value in strengths]
        return [*found, self.run("SDEdit", "text alone", self.text)]

    def score(self, name: str, interval: Interval, **more: Any) -> Score:
        """A row of the report."""
        of = "" if self.name == HELD_OUT else f", {self.name}"
        return Score(self.part, f"{self.ours}{of}: {name}", *interval, len(self.trials), **more)

    def rows(self, proven: Iterable[tuple[str, str, str]], compared: Mapping[str, Outcome]) -> list[Score]:
        """The scores of the first point: for each its words, the field of :class:`Outcome`, and what is wanted of it.

        Fields that the trials lack are left out. Recognition is also given above chance.
        """
        point, plain = (self.front(system)[0] for system in (self.ours, COPY))
        scores = []
        for words_, field, target in proven:
            values = getattr(point, field)
            if np.isnan(values).all():  # without a truth, or with a single tune
                continue
            more = {other: mean(getattr(found, field)) for other, found in compared.items()}
            more |= {"shuffled": mean(point.pitch_floor)} if field == "pitch" else {}
            untrained = mean(getattr(plain, field))
            scores.append(self.score(words_, self.interval(values), untrained=untrained, compared=more, target=target))
            if field == "recognized":
                kappa = {other: self.trials.above_chance(found).mean for other, found in compared.items()}
                random, chance = self.trials.above_chance(plain).mean, self.trials.above_chance(point)
                scores.append(self.score("recognition above chance (kappa)", chance, untrained=random, compared=kappa))
        return scores

    def interval(self, values: np.ndarray) -> Interval:
        """Mean of one value per trial; its interval resamples tunes."""
        return bootstrap_by_source(values, self.trials.tunes, self.trials.seed)

    def above(self, other: str, ours: list[Outcome], theirs: list[Outcome], target: str = "low > 0") -> list[Score]:
        """The front above another one at equal recognition; empty where they are the same."""
        if ours[0] is theirs[0]:
            return []
        return [
            self.score(
                f"above {other} at equal recognition, {words_}",
                above_at_equal_recognition(ours, theirs, field, self.trials.tunes, self.trials.seed),
                target=target,
            )
            for words_, field in (("pitch accuracy", "pitch"), ("chroma above the floor", "margin"))
        ]

    def beside(self, other: str) -> list[Score]:
        """The adapter above another system in pitch accuracy, trial by trial at each of the same points."""
        scores = []
        for point, ours, theirs in zip(self.points, self.front(self.ours), self.front(other), strict=True):
            compared = {"recognized": mean(ours.recognized), f"recognized, {other}": mean(theirs.recognized)}
            name = f"pitch accuracy above its {other} at {words(point) or 'the defaults'}"
            scores.append(self.score(name, self.interval(ours.pitch - theirs.pitch), compared=compared))
        return scores

    def keep(self, folder: Path) -> None:
        """Write some edits as sound, and a picture of three of them."""
        shown = {name: self.made[name] for name in self.made if name in ("no edit", "text alone", "truth")}
        shown |= {system: self.made[names[0]] for system, names in self.fronts.items() if system in self.editors}
        pairs = [f"{trial.instrument} to {trial.target}" for trial in self.trials.trials[:SHOWN]]
        for i, pair in enumerate(pairs):
            for name, waveforms in shown.items():
                file = f"{i:02d}-{pair.replace(' to ', '-to-')}-{name}.wav".replace(" ", "_")
                save_audio(folder / file, waveforms[i], self.trials.clips.sample_rate)
        rows = {name: list(log_mel(waveforms[:3], MelSpec())[:, 0]) for name, waveforms in shown.items()}
        draw_mels(folder / "edits.png", rows, pairs[:3])

    def intervals(self) -> dict[str, dict[str, Interval]]:
        """Mean and interval of every score of every system."""
        fields = [name for name in (*Outcome.__dataclass_fields__, "margin") if name != "answer"]
        found = {}
        for name, outcome in self.outcomes.items():
            found[name] = {field: self.interval(getattr(outcome, field)) for field in fields}
            if not np.isnan(outcome.recognized).all():
                found[name]["above chance"] = self.trials.above_chance(outcome)
        return found


def words(point: dict[str, Any]) -> str:
    """An operating point by the symbols of its knobs: "omega 2, alpha 0.5"."""
    shown = {name: value or "none" if name == "negative_prompt" else value for name, value in point.items()}
    texts = [f"{SYMBOLS.get(name, name)} {value}" for name, value in shown.items() if name != "audio_prompts"]
    for entry in point.get("audio_prompts") or ():
        own = {name: value for name, value in entry.items() if name not in ("audio", "adapter")}
        texts.append(f"{entry.get('audio', 'recording')}: {words(own)}")
    return ", ".join(texts)


def write(folder: Path, benches: Sequence[Bench]) -> None:
    """Write all outcomes as JSON and as a table, the fronts as a picture, and some edits."""
    found = {bench.name: bench.intervals() for bench in benches}

    def plain(interval: Interval) -> list[float | None]:
        return [None if np.isnan(value) else round(value, 4) for value in interval]

    data = {
        name: {system: {field: plain(value) for field, value in fields.items()} for system, fields in systems.items()}
        for name, systems in found.items()
    }
    write_file(folder / "editing.json", json.dumps(data, indent=1) + "\n")
    columns = ("recognized", "above chance", "pitch", "margin", "clap")
    lines = ["| trials | system | " + " | ".join(columns) + " |", "|---" * (2 + len(columns)) + "|"]
    for name, systems in found.items():
        for system, fields in systems.items():
            cells = [fields.get(column) for column in columns]
            texts = [
                "" if c is None or np.isnan(c.mean) else f"{c.mean:.2f} [{c.low:.2f}, {c.high:.2f}]" for c in cells
            ]
            lines.append(f"| {name} | {system} | " + " | ".join(texts) + " |")
    write_file(folder / "editing.md", "\n".join(lines) + "\n")
    fronts = {
        bench.name: {
            system: {name: found[bench.name][name] for name in names} for system, names in bench.fronts.items()
        }
        for bench in benches
        if bench.name != GENRES
    }
    draw_fronts(folder / "trade_off.png", fronts)
    for bench in benches:
        bench.keep(folder / "edits" / bench.name.replace(" ", "_"))
