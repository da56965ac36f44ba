"""Proof of imitation: an edit keeps the tune of one recording and takes the sound of another, a reference of another tune.

No prompt names the target: what is recognized, the reference has told through an adapter of its own.
"""

from pathlib import Path

from apa_lightning.errors import InputError
from apa_lightning.pocket.instrument_judge import InstrumentJudge
from apa_lightning.pocket.measures.editing import PROVEN, load_editors, trial_sets
from apa_lightning.pocket.report.bench import COPY, Bench, write
from apa_lightning.pocket.report.edit_trials import Trials, with_references
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.subject import Subject

PART = "imitation"


def measure(subject: Subject) -> list[Score]:
    """Compare the adapters of tune and sound with untrained copies, the tune's adapter alone, no edit and the truth.

    References are held-out melodies on the target, and recordings of it where there are some. The folder of pictures gets a folder
    ``imitation`` with the same files as that of :mod:`~apa_lightning.pocket.measures.editing`.

    Raises:
        InputError: If there is no adapter of the sound, the folder lacks a part, or an operating point does not suit them.
        ValueError: If no melody was rendered on two instruments.
    """
    proof, seed, judge = subject.proof, subject.seed, InstrumentJudge.from_pretrained(subject.folder)
    sound = subject.folder / "timbre.safetensors" if proof.sound_adapter == "auto" else Path(str(proof.sound_adapter))
    if not sound.is_file():
        raise InputError(
            f"model.proof.sound_adapter: {sound} is not a file; give the adapter that reads the reference."
        )
    editors = load_editors(subject, proof.sound_points, str(sound))
    benches = []
    for name, trials in trial_sets(subject, judge).items():
        if shown := with_references(trials.clips, trials.trials):
            benches.append(
                Bench(name, Trials(trials.clips, shown, judge, seed), editors, proof.sound_points, proof, PART)
            )
    scores = [score for bench in benches for score in imitation(bench)]
    if subject.pictures is not None:
        write(subject.pictures / PART, benches)
    return scores


def imitation(bench: Bench) -> list[Score]:
    """All that is to be proven of edits that imitate a reference."""
    ours, plain = bench.front(bench.ours), bench.front(COPY)
    first = bench.points[0]
    alone = {**first, "audio_prompts": [entry for entry in first["audio_prompts"] if "audio" not in entry]}
    bench.run("no reference", "no reference", alone)
    bench.note("no edit", bench.trials.sources)
    names = ["no reference", "no edit"]
    if all(trial.truth is not None for trial in bench.trials.trials):
        bench.note("truth", bench.trials.truths)
        names.append("truth")
    rows = bench.rows(
        [(words, field, "") for words, field, *_ in PROVEN], {name: bench.outcomes[name] for name in names}
    )
    return rows + bench.above("its untrained copy", ours, plain)
