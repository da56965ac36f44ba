"""Proof of editing: the target is recognized and the source's tune is kept, on held-out melodies and on real recordings.

Text alone makes the target and forgets the tune, the source has the tune and is not the target: both scores count together,
so that systems are compared where they are recognized equally often.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import Tensor

from apa_lightning.audio import MelSpec, log_mel, save_audio
from apa_lightning.conditioning.dropout import DroppedAudio
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.metrics import ClapScore
from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.pocket.instrument_judge import InstrumentJudge
from apa_lightning.pocket.report.edit_trials import GENRE, Outcome, Trials, recorded_trials, rendered_trials
from apa_lightning.pocket.report.fronts import above_at_equal_recognition, at_level
from apa_lightning.pocket.report.pictures import draw_fronts, draw_mels
from apa_lightning.pocket.report.proof import OF_TEXT, Proof
from apa_lightning.pocket.report.recordings import of_known_instrument
from apa_lightning.pocket.report.scores import Score, mean
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.bootstrap import Interval, bootstrap_by_source

HELD_OUT, REAL, GENRES = "held-out melodies", "real recordings", "genre transfer"
#: Melody accuracy that an edit of the genre must keep.
KEPT = 0.4
SHOWN = 8  # edits that are kept as sound
SYMBOLS = {"time_pooling": "omega", "ap_scale": "alpha", "guidance_scale": "lambda", "num_inference_steps": "steps"}
#: What is to be proven at the first point: name, field of :class:`Outcome`, targets on held-out melodies and real recordings.
PROVEN = (
    ("target recognized by the judge", "recognized", ">= 0.9", ""),
    ("chroma similarity to the source above the shuffled floor", "margin", ">= 0.45", ">= 0.25"),
    ("chroma similarity to the source", "chroma", "", ""),
    ("pitch accuracy to the source", "pitch", ">= 0.75", ">= 0.4"),
    ("log-mel distance to the truth in nats", "mel_to_truth", "", ""),
    ("pitch accuracy to the truth", "pitch_to_truth", "", ""),
)


def measure(subject: Subject) -> list[Score]:
    """Compare the adapter with its untrained copy, SDEdit, text alone, no edit and the truth.

    The clips hold each melody on several instruments; windows of real recordings of a known instrument are edited too.
    Intervals resample melodies and recordings, because windows of one recording are not independent. In the folder of
    pictures: ``editing.md`` with every system, ``editing.json``, ``trade_off.png``, and some edits as sound and picture.

    Raises:
        InputError: If the folder lacks a part, of the backbone or the judge, or no recording is of a known instrument.
        ValueError: If no melody was rendered on two instruments.
    """
    proof, seed, judge = subject.proof, subject.seed, InstrumentJudge.from_pretrained(subject.folder)
    rendered = rendered_trials(subject.clips, proof.trials, seed)
    if not rendered:
        raise ValueError("no melody was rendered on two instruments: configs/pocket/held_out.yaml has renditions")
    sets = {HELD_OUT: Trials(subject.clips, rendered, judge, seed)}
    if windows := subject.windows:
        named = of_known_instrument(windows)
        if not named:
            raise InputError("model.recordings: no recording of a known instrument is as long as a window.")
        # The first window of every recording comes first, so that few trials are of many recordings.
        order = sorted(named, key=lambda i: int(windows.keys[i].rpartition("-")[2]))
        trials = recorded_trials({i: named[i] for i in order}, proof.recorded)
        sets[REAL] = Trials(windows, trials, judge, seed)
    editors = load_editors(subject)
    benches = [Bench(name, trials, editors, proof) for name, trials in sets.items()]
    scores = [score for bench in benches for score in bench.proof()]
    if proof.genre_trials:
        chosen = recorded_trials({t.source: t.instrument for t in rendered}, proof.genre_trials, GENRE)
        clap = ClapScore(ClapEmbedder.from_pretrained(subject.folder))
        genres = Bench(GENRES, Trials(subject.clips, chosen, judge, seed, GENRE, clap), editors, proof)
        scores += genres.genre()
        benches.append(genres)
    if subject.pictures is not None:
        write(subject.pictures, benches)
    return scores


def load_editors(subject: Subject) -> dict[str, AudioEditor]:
    """Editors with the trained adapter, if there is one, and with its untrained copy.

    Raises:
        InputError: If a part or the adapter cannot be loaded, or an operating point does not suit them.
    """
    own, file = subject.folder / "adapter.safetensors", subject.proof.adapter
    if file == "auto":
        file = str(own) if own.is_file() else None
    editor = AudioEditor.from_pretrained(subject.folder, file, subject.folder / "audio_encoder")
    for point in (*subject.proof.points, *subject.proof.genre_points):
        for problem in editor.problems(EditSettings(**point)):
            raise problem
    if file is None:
        return {"untrained copy": editor}
    copy = [editor.backbone.new_adapter(None)]
    unconditional = cast(DroppedAudio, editor.unconditional_audio)
    untrained = AudioEditor(editor.backbone, editor.audio_encoder, copy, unconditional)
    return {"adapter": editor, "untrained copy": untrained}


class Bench:
    """Systems on the same trials, each run once.

    Args:
        name: Name of the trials.
        trials: The trials.
        editors: Editors with an adapter by name; the first is the one to be proven.
        proof: Operating points.
    """

    def __init__(self, name: str, trials: Trials, editors: dict[str, AudioEditor], proof: Proof):
        self.name, self.trials, self.editors, self.settings = name, trials, editors, proof
        self.points = proof.genre_points if name == GENRES else proof.points
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
        return Score("editing", f"{self.ours}{of}: {name}", *interval, len(self.trials), **more)

    def interval(self, values: np.ndarray) -> Interval:
        """Mean of one value per trial; its interval resamples tunes."""
        return bootstrap_by_source(values, self.trials.tunes, self.trials.seed)

    def proof(self) -> list[Score]:
        """All that is to be proven of timbre transfer."""
        ours = self.front(self.ours)
        point, plain = ours[0], self.front("untrained copy")
        sdedit = self.sdedit()
        no_negative = {**self.points[0], "negative_prompt": ""}
        self.run("no negative prompt", "no negative prompt", no_negative)
        self.note("no edit", self.trials.sources)
        if truth := all(trial.truth is not None for trial in self.trials.trials):
            self.note("truth", self.trials.truths)
        compared = {other: found for other, found in self.outcomes.items() if not other.startswith(tuple(self.editors))}
        scores = []
        for words_, field, *targets in PROVEN:
            values = getattr(point, field)
            if np.isnan(values).all():  # without a truth, or with a single tune
                continue
            more = {other: mean(getattr(found, field)) for other, found in compared.items()}
            more |= {"shuffled": mean(point.pitch_floor)} if field == "pitch" else {}
            target = targets[0 if truth else 1]
            untrained = mean(getattr(plain[0], field))
            scores.append(self.score(words_, self.interval(values), untrained=untrained, compared=more, target=target))
            if field == "recognized":
                kappa = {
                    other: self.trials.above_chance(found)
                    for other, found in (("untrained", plain[0]), *compared.items())
                }
                means = {other: found.mean for other, found in kappa.items()}
                random = means.pop("untrained")
                chance = self.trials.above_chance(point)
                scores.append(self.score("recognition above chance (kappa)", chance, untrained=random, compared=means))
        return scores + self.above("its untrained copy", ours, plain, ">= 0.1") + self.above("SDEdit", ours, sdedit)

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

    def genre(self) -> list[Score]:
        """CLAP of the genre where enough of the melody is kept."""
        self.run("text alone", "text alone", self.text)
        self.note("no edit", self.trials.sources)
        ours, plain = (
            at_level(self.front(system), "pitch", KEPT, "clap", self.trials.tunes, self.trials.seed)
            for system in (self.ours, "untrained copy")
        )
        compared = {name: mean(self.outcomes[name].clap) for name in ("text alone", "no edit")}
        words_ = f"CLAP at a melody accuracy of {KEPT:g} or more"
        return [self.score(words_, ours, untrained=plain.mean, compared=compared, target=">= 0.45")]

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
            if self.name != GENRES:
                found[name]["above chance"] = self.trials.above_chance(outcome)
        return found


def words(point: dict[str, Any]) -> str:
    """An operating point by the symbols of its knobs: "omega 2, alpha 0.5"."""
    return ", ".join(f"{SYMBOLS.get(name, name)} {value}" for name, value in point.items())


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
