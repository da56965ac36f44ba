"""``listening-test score``: the paper's Table 2 from the files that listeners sent back."""

import csv
import io
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from apa_lightning.errors import InputError
from apa_lightning.evaluation.report.tables import NONE, Cell, Table, as_markdown
from apa_lightning.listening_test.answers import Answers, answer_files, newest, read_answers
from apa_lightning.listening_test.attention import RULE, why_rejected
from apa_lightning.listening_test.key import HIDDEN_SOURCE, KEY_FILE, Key
from apa_lightning.listening_test.questions import QUESTIONS
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.bootstrap import DRAWS, Interval

ALL_TASKS = "all"


class OpinionRow(NamedTuple):
    """One cell of Table 2.

    Attributes:
        task: Task, or :data:`ALL_TASKS`.
        system: Rated system.
        question: Name of the question.
        mos: Mean opinion score with its 95 % interval.
        ratings: Number of ratings.
        listeners: Number of listeners who gave them.
    """

    task: str
    system: str
    question: str
    mos: Interval
    ratings: int
    listeners: int


def score(
    answers: Path | list[Path], key: Path | None = None, out: Path | None = None, keep_all: bool = False, seed: int = 0
) -> None:
    """Print the table of a listening test: mean opinion scores with 95 % intervals, per task, system and question.

    Intervals resample both listeners and source recordings. Of several files of one listener the newest counts; the
    ratings of unfinished tests count. A listener is rejected who (1) rates the fidelity of the hidden copy of the source
    below 4 in more than 20% of the sets, (2) rates the two appearances of a repeated edit more than 1 point apart on
    average, (3) gives the same number everywhere, or (4) did not rate the fidelity of any hidden copy.

    Args:
        answers: Files that listeners sent back, or folders of them.
        key: The key.json of the test; by default the file next to the first of ``answers`` or in the folder above it.
        out: Folder for table2.md and table2.csv; by default the table is only printed.
        keep_all: Reject no listener.
        seed: Seed of the intervals.

    Raises:
        InputError: If the answers or the key cannot be used, or if every listener is rejected.
    """
    paths = [answers] if isinstance(answers, Path) else answers
    found = answer_files(paths)
    test = Key.load(_find_key(paths[0]) if key is None else key)
    usable, unusable = _read_all(found, test)
    listeners = newest(usable)
    reasons = {one.listener: why_rejected(one.ratings, test.items) for one in listeners}
    kept = [one for one in listeners if keep_all or not reasons[one.listener]]
    verb = "Would be rejected, kept by --keep_all" if keep_all else "Rejected"
    report = _counts(found, usable, listeners, kept, test)
    report += [f"Not used: {file}: {why}" for file, why in unusable]
    report += [
        f"{verb}: {one.listener} ({one.file.name}): {why}." for one in listeners if (why := reasons[one.listener])
    ]
    if not kept:
        raise InputError(
            "answers: every listener is rejected; give --keep_all true to count them.\n" + "\n".join(report)
        )
    rows = table(kept, test, seed)
    text = as_markdown(_shown(rows, [*report, RULE])) + "\n"
    print(text)
    if out is not None:
        for name, content in (("table2.md", text), ("table2.csv", _csv(rows))):
            write_file(out / name, content)
        print(f"Written to {out / 'table2.md'} and {out / 'table2.csv'}")


def table(listeners: list[Answers], key: Key, seed: int = 0) -> list[OpinionRow]:
    """The cells of Table 2; the second appearance of an edit serves only to check attention."""
    tasks = list(dict.fromkeys(item.task for item in key.items.values()))
    rows = []
    for task in [*tasks, ALL_TASKS] if len(tasks) > 1 else tasks:
        for system in [*key.systems, HIDDEN_SOURCE]:
            items = {
                token: item.source
                for token, item in key.items.items()
                if item.system == system and item.control != "repeat" and task in (item.task, ALL_TASKS)
            }
            for question in QUESTIONS:
                given = [
                    (one.listener, items[token], rated[question.name])
                    for one in listeners
                    for token, rated in one.ratings.items()
                    if token in items and question.name in rated
                ]
                count = len({listener for listener, *_ in given})
                rows.append(OpinionRow(task, system, question.name, crossed_bootstrap(given, seed), len(given), count))
    return rows


def crossed_bootstrap(ratings: list[tuple[str, str, int]], seed: int = 0) -> Interval:
    """Mean rating with its 95 % interval over both listeners and recordings, which are resampled independently.

    Neither the ratings of one listener nor those of one recording are independent of each other.

    Args:
        ratings: Listener, source recording and rating of each.
        seed: Seed of the draws.
    """
    if not ratings:
        return Interval(np.nan, np.nan, np.nan)
    listeners, sources, values = (np.array(column) for column in zip(*ratings, strict=True))
    people, person = np.unique(listeners, return_inverse=True)
    recordings, recording = np.unique(sources, return_inverse=True)
    sums, counts = (np.zeros((len(people), len(recordings))) for _ in range(2))
    np.add.at(sums, (person, recording), values)
    np.add.at(counts, (person, recording), 1)
    generator = np.random.default_rng(seed)
    drawn = [generator.multinomial(size, np.full(size, 1 / size), size=DRAWS) for size in sums.shape]
    total = ((drawn[0] @ sums) * drawn[1]).sum(axis=1)
    number = ((drawn[0] @ counts) * drawn[1]).sum(axis=1)
    means = total[number > 0] / number[number > 0]  # a draw may contain no rating if someone left some out
    return Interval(float(values.mean()), *(float(bound) for bound in np.percentile(means, [2.5, 97.5])))


def _find_key(answers: Path) -> Path:
    folder = answers.resolve() if answers.is_dir() else answers.resolve().parent
    for place in (folder, folder.parent):
        if (place / KEY_FILE).is_file():
            return place / KEY_FILE
    raise InputError(f"key: there is no {KEY_FILE} next to {answers} or in the folder above; give it with --key.")


def _read_all(files: list[Path], key: Key) -> tuple[list[Answers], list[tuple[Path, str]]]:
    """The usable files, and the others with the reason why each cannot be used."""
    usable, unusable = [], []
    for file in files:
        try:
            usable.append(read_answers(file, key))
        except (InputError, OSError) as error:
            unusable.append((file, str(error)))
    if not usable:
        raise InputError("answers: no file can be used:\n" + "\n".join(f"  {file}: {why}" for file, why in unusable))
    return usable, unusable


def _counts(
    files: list[Path], usable: list[Answers], listeners: list[Answers], kept: list[Answers], key: Key
) -> list[str]:
    complete = len(key.items) * len(QUESTIONS)
    unfinished = sum(sum(map(len, one.ratings.values())) < complete for one in kept)
    lines = [
        f"Listeners: {len(kept)} counted, {len(listeners) - len(kept)} rejected; "
        f"{len(files)} files, {len(usable) - len(listeners)} superseded by a newer one of the same listener.",
        "MOS [95 % interval over listeners and source recordings, both resampled].",
    ]
    if unfinished:
        lines.append(f"Unfinished tests among those counted: {unfinished}; the ratings that they contain count.")
    if len(kept) == 1:
        lines.append("There is only one listener: the intervals say nothing about other listeners.")
    return lines


def _shown(rows: list[OpinionRow], notes: list[str]) -> Table:
    lines: list[tuple[tuple[str, ...], list[Cell]]] = []
    for names, group in groupby(rows, key=lambda row: (row.task, row.system)):
        of_questions = list(group)
        counts = [str(row.ratings) for row in of_questions]
        counts = counts[:1] if len(set(counts)) == 1 else counts
        lines.append((names, [*(_cell(*row.mos) for row in of_questions), Cell(" / ".join(counts))]))
    titles = [*(question.title.lower() for question in QUESTIONS), "ratings each"]
    return Table("", ("task", "system"), [("", title) for title in titles], lines, tuple(notes))


def _cell(mean: float, low: float, high: float) -> Cell:
    return Cell(NONE) if np.isnan(mean) else Cell(f"{mean:.2f}", f"[{low:.2f}, {high:.2f}]")


def _csv(rows: list[OpinionRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["task", "system", "question", "mos", "low", "high", "ratings", "listeners"])
    for row in rows:
        interval = ["" if np.isnan(value) else f"{value:.4f}" for value in row.mos]
        writer.writerow([row.task, row.system, row.question, *interval, row.ratings, row.listeners])
    return text.getvalue()
