"""Proof of editing: the target is recognized and the source's tune is kept, on held-out melodies and on real recordings.

Text alone makes the target and forgets the tune, the source has the tune and is not the target: both scores count together,
so that systems are compared where they are recognized equally often.
"""

from collections.abc import Sequence
from typing import Any, cast

from apa_lightning.conditioning.dropout import DroppedAudio
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.metrics import ClapScore
from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.pocket.instrument_judge import InstrumentJudge
from apa_lightning.pocket.report.bench import COPY, GENRES, HELD_OUT, REAL, Bench, write
from apa_lightning.pocket.report.edit_trials import GENRE, Trials, recorded_trials, rendered_trials
from apa_lightning.pocket.report.fronts import at_level
from apa_lightning.pocket.report.recordings import of_known_instrument
from apa_lightning.pocket.report.scores import Score, mean
from apa_lightning.pocket.report.subject import Subject

#: Melody accuracy that an edit of the genre must keep.
KEPT = 0.4
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
    sets = trial_sets(subject, judge)
    editors = load_editors(subject, [*proof.points, *proof.genre_points])
    benches = [Bench(name, trials, editors, proof.points, proof) for name, trials in sets.items()]
    scores = [score for bench in benches for score in timbre(bench)]
    if proof.genre_trials:
        solos = {trial.source: trial.instrument for trial in sets[HELD_OUT].trials}
        chosen = recorded_trials(solos, proof.genre_trials, GENRE)
        clap = ClapScore(ClapEmbedder.from_pretrained(subject.folder))
        trials = Trials(subject.clips, chosen, judge, seed, GENRE, clap)
        benches.append(Bench(GENRES, trials, editors, proof.genre_points, proof))
        scores += genre(benches[-1])
    if subject.pictures is not None:
        write(subject.pictures, benches)
    return scores


def trial_sets(subject: Subject, judge: InstrumentJudge) -> dict[str, Trials]:
    """Trials of timbre transfer on held-out melodies, and on windows of real recordings where there are some.

    Raises:
        InputError: If no recording is of a known instrument.
        ValueError: If no melody was rendered on two instruments.
    """
    proof, seed = subject.proof, subject.seed
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
    return sets


def load_editors(subject: Subject, points: Sequence[dict[str, Any]], *further: str) -> dict[str, AudioEditor]:
    """Editors with the trained adapter, if there is one, and with its untrained copy.

    Args:
        subject: Its folder and its settings of the proof name backbone and adapter.
        points: Operating points of the edits.
        further: Files of adapters beside it.

    Raises:
        InputError: If a part or an adapter cannot be loaded, or an operating point does not suit them.
    """
    editor = AudioEditor.from_pretrained(subject.folder, [subject.adapter, *further], subject.folder / "audio_encoder")
    for problem in (problem for point in points for problem in editor.problems(EditSettings(**point))):
        raise problem
    if subject.adapter is None and not further:
        return {COPY: editor}
    copies = [editor.backbone.new_adapter(None) for _ in editor.adapters]
    unconditional = cast(DroppedAudio, editor.unconditional_audio)
    return {"adapter": editor, COPY: AudioEditor(editor.backbone, editor.audio_encoder, copies, unconditional)}


def timbre(bench: Bench) -> list[Score]:
    """All that is to be proven of timbre transfer."""
    ours, plain, sdedit = bench.front(bench.ours), bench.front(COPY), bench.sdedit()
    without = {name: value for name, value in bench.points[0].items() if name != "negative_prompt"}
    if without != bench.points[0]:
        bench.run("the task's negative prompt", "the task's negative prompt", without)
    else:
        bench.run("no negative prompt", "no negative prompt", {**without, "negative_prompt": ""})
    bench.note("no edit", bench.trials.sources)
    if truth := all(trial.truth is not None for trial in bench.trials.trials):
        bench.note("truth", bench.trials.truths)
    compared = {other: found for other, found in bench.outcomes.items() if not other.startswith(tuple(bench.editors))}
    scores = bench.rows([(words, field, targets[0 if truth else 1]) for words, field, *targets in PROVEN], compared)
    scores += bench.above("its untrained copy", ours, plain, ">= 0.1") + bench.above("SDEdit", ours, sdedit)
    return scores + (bench.beside(COPY) if bench.ours != COPY else [])


def genre(bench: Bench) -> list[Score]:
    """CLAP of the genre where enough of the melody is kept."""
    bench.run("text alone", "text alone", bench.text)
    bench.note("no edit", bench.trials.sources)
    ours, plain = (
        at_level(bench.front(system), "pitch", KEPT, "clap", bench.trials.tunes, bench.trials.seed)
        for system in (bench.ours, COPY)
    )
    compared = {name: mean(bench.outcomes[name].clap) for name in ("text alone", "no edit")}
    words = f"CLAP at a melody accuracy of {KEPT:g} or more"
    return [bench.score(words, ours, untrained=plain.mean, compared=compared, target=">= 0.45")]
