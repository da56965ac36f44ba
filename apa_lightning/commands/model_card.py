"""The model card of a published adapter: the header that the Hugging Face hub reads, and the text."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apa_lightning
from apa_lightning.errors import InputError
from apa_lightning.evaluation.report.tables import Scores, as_markdown, tables
from apa_lightning.evaluation.rows import ABOUT_FILE, DISTANCES, KNOBS, EvaluationRow, read_json, read_rows, tasks_of
from apa_lightning.utils.templates import render

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

#: The system of an evaluation whose scores are those of the adapter.
SYSTEM = "adapter"
#: Metrics of the header, where they were measured.
METRICS = ("clap", "chroma", "melody", "recognised")
#: The hub's name of a task that takes a recording and returns one.
PIPELINE_TAG = "audio-to-audio"
TAGS = ["audio-prompt-adapter", "music-editing", "text-to-audio", "arxiv:2407.16564"]
#: A path with at least two folders, in a sentence.
_PATH = re.compile(r"(?<![\w:/.])[~.]{0,2}(?:/[^\s/|`<>\"']+){2,}")


@dataclass(frozen=True)
class Evaluated:
    """The output of ``evaluate`` of one adapter.

    Attributes:
        folder: Output folder.
        rows: Content of its ``results.csv``.
        sets: Content of its ``set_metrics.json``.
        about: Content of its ``evaluation.json``.
    """

    folder: Path
    rows: list[EvaluationRow]
    sets: list[dict[str, Any]]
    about: dict[str, Any]

    @classmethod
    def read(cls, path: Path, digest: str) -> "Evaluated":
        """Read an output folder, or the one of an ``evaluation.json``.

        Args:
            path: Of the folder or file.
            digest: Of the adapter that must have been evaluated.

        Raises:
            InputError: If it is not an evaluation, or one of another adapter.
        """
        folder = path.parent if path.name == ABOUT_FILE else path
        try:
            about, sets = read_json(folder / ABOUT_FILE, None), read_json(folder / DISTANCES, [])
        except ValueError as error:
            raise InputError(f"evaluation: {folder} holds a damaged file ({error}). Run evaluate again.") from None
        if not isinstance(about, dict):
            raise InputError(f"evaluation: {folder} holds no {ABOUT_FILE}; give the output folder of evaluate.")
        if about.get("adapter") != digest:
            raise InputError(
                f"evaluation: {folder} evaluated the adapter {about.get('adapter') or 'not stated'}, the one to publish is "
                f"{digest}. Evaluate it: python -m apa_lightning evaluate --config configs/evaluate.yaml "
                "--config configs/tasks/timbre.yaml --data.output NEW --model.adapter FILE"
            )
        rows = read_rows(folder)
        if not any(row.system == SYSTEM for row in rows):
            raise InputError(f"evaluation: {folder} has no edits by the system {SYSTEM}. Evaluate with it.")
        return cls(folder, rows, sets, about)

    @property
    def seed(self) -> int:
        """Seed of the intervals."""
        return int(self.about.get("seed") or 0)

    def results(self) -> "list[EvalResult]":
        """The scores of the adapter by task, with their intervals, as the hub's header has them."""
        from huggingface_hub import EvalResult

        scores, name = Scores(self.rows, self.sets, self.seed), str(self.about.get("set") or "not stated")
        found = []
        for task in scores.tasks:
            for metric in METRICS:
                mean, low, high = scores.at(task, SYSTEM, metric)
                if not math.isfinite(mean):
                    continue
                floor = scores.at(task, SYSTEM, scores.columns[metric].floor).mean
                known = {"low_95": low, "high_95": high, "floor": floor}
                found.append(
                    EvalResult(
                        task_type=PIPELINE_TAG,
                        task_name=f"music editing: {task}",
                        dataset_type=re.sub(r"\W+", "-", name).strip("-").lower() or "recordings",
                        dataset_name=f"{name}: {task}",
                        dataset_config=task,  # the hub's parser takes results of one task type and set for one entry
                        dataset_args={"sources": self.about.get("sources")},
                        metric_type=metric,
                        metric_name=scores.title(metric),
                        metric_value=round(mean, 4),
                        metric_args={key: round(value, 4) for key, value in known.items() if math.isfinite(value)},
                    )
                )
        return found

    def settings(self) -> dict[str, dict[str, Any]]:
        """The knobs of the adapter's edits by task, but for the seed, which differs by edit."""
        firsts = {row.task: row for row in reversed(self.rows) if row.system == SYSTEM}
        return {
            task: {name: value for name, value in firsts[task].knobs.items() if name != "seed"}
            for task in tasks_of(self.rows)
            if task in firsts
        }

    def tables(self) -> str:
        """The tables of ``table1.md``, without the folders of this machine."""
        made = tables(self.rows, self.sets, self.about, self.seed)
        return "\n\n".join(as_markdown(table).replace("## ", "### ", 1) for table in made)


def training_facts(history: Path | None, metadata: Mapping[str, str]) -> dict[str, str]:
    """What a card says of the training: nothing that names the machine, its folders or its user.

    Args:
        history: The run's ``history.jsonl``; None if there is none.
        metadata: Header of the adapter file.

    Raises:
        InputError: If the history is not one.
    """
    facts = {key: metadata[key] for key in ("step", "weights", "condition_dropout", "loa_layers") if key in metadata}
    if history is None:
        return facts
    if not history.is_file():
        raise InputError(f"run: {history} does not exist; give the folder of a training run, or leave it out.")
    events = list(_events(history.read_text(encoding="utf-8", errors="replace").splitlines()))
    starts = [event for event in events if event["event"] == "start"]
    if not starts:
        raise InputError(f"run: {history} holds no start of a run; give the folder of a training run, or leave it out.")
    last = starts[-1]
    step, ended = metadata.get("step", "0"), events[-1].get("step", 0)
    if events[-1]["event"] == "end" and step.isdigit() and int(step) > ended:
        raise InputError(
            f"run: {history} ends at step {ended}, the adapter is of step {step}. "
            "Give the run that it came from, or leave it out."
        )
    trained, started = timedelta(), None
    for event in events:
        time = datetime.fromisoformat(event["time"])
        if event["event"] == "end" and started is not None:
            trained += time - started
        started = time if event["event"] == "start" else None
    facts |= {"started": starts[0]["time"], "starts": str(len(starts)), "time": str(trained)}
    facts |= {key: str(last[key]) for key in ("precision", "processes", "device", "python") if key in last}
    for split, about in (last.get("data") or {}).items():
        if isinstance(about, dict):
            known = {key: about[key] for key in ("shards", "clips", "audio_prompts", "digest") if key in about}
            facts[f"data: {split}"] = ", ".join(f"{key} {value}" for key, value in known.items())
    if versions := {name: version for name, version in (last.get("versions") or {}).items() if version}:
        facts["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items())
    if git := last.get("git"):
        facts["code"] = git.get("commit", "") + (" with local changes" if git.get("changed") else "")
    return facts


def _events(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    """The starts and ends of a history; a line that was cut when the process was killed is left out."""
    for line in lines:
        try:
            event = json.loads(line)
            datetime.fromisoformat(event["time"])
        except (ValueError, TypeError, KeyError):
            continue
        if event.get("event") in ("start", "end"):
            yield event


@dataclass(frozen=True)
class About:
    """What a card says of an adapter.

    Attributes:
        name: Its name.
        id: Hub id, or the folder, that the examples of use load.
        license: The hub's name of a licence.
        base: The backbone's hub id, or a description of it.
        base_model: The backbone's hub id; None for the one that comes with the package.
        datasets: Hub ids of the data that it was trained on.
        parts: What else an editor needs, by its setting.
        parameters: Number of its weights.
        digest: Identity of its weights.
        training: Facts about its training.
    """

    name: str
    id: str
    license: str
    base: str
    base_model: str | None
    datasets: Sequence[str]
    parts: Mapping[str, str]
    parameters: int
    digest: str
    training: Mapping[str, str] = field(default_factory=dict)


def model_card(
    about: About, evaluated: Evaluated | None, examples: Sequence[Mapping[str, Any]] = (), plots: Sequence[Path] = ()
) -> "ModelCard":
    """The card, read back by the hub's own parser.

    Args:
        about: The adapter.
        evaluated: Its evaluation; None if there is none.
        examples: Task, prompt and files (by label) of each sound example; paths are relative to the card.
        plots: Pictures, relative to the card.
    """
    from huggingface_hub import ModelCard, ModelCardData

    relation: dict[str, Any] = {"base_model_relation": "adapter"} if about.base_model else {}
    data = ModelCardData(
        license=about.license,
        library_name="apa_lightning",
        base_model=about.base_model,
        pipeline_tag=PIPELINE_TAG,
        tags=TAGS,
        datasets=list(about.datasets) or None,
        model_name=about.name,
        eval_results=evaluated.results() if evaluated else None,
        **relation,
    )
    settings = evaluated.settings() if evaluated else {}
    text = render(
        __package__,
        "model_card.md.j2",
        **{name: getattr(about, name) for name in ("id", "base", "parts", "parameters", "digest")},
        name=plain(about.name),
        version=apa_lightning.__version__,
        tables=without_folders(evaluated.tables()) if evaluated else "",
        settings={plain(task): values for task, values in settings.items()},
        knobs=[knob for knob in KNOBS if any(knob in values for values in settings.values())],
        examples=[{**one, "task": plain(one["task"]), "prompt": plain(one["prompt"])} for one in examples],
        plots=[{"stem": plot.stem, "folder": plot.parent.name, "name": plot.name} for plot in plots],
        training={plain(key): plain(without_folders(value)) for key, value in about.training.items()},
    )
    without_gaps = re.sub(r"\n{3,}", "\n\n", text)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{without_gaps}")


def plain(text: str) -> str:
    """Text of others as Markdown that shows it as it is: one line, without tags, links, emphasis or ends of a cell."""
    return re.sub(r"([\\`*_\[\]<>|!#&~])", r"\\\1", " ".join(text.split()))


def without_folders(text: str) -> str:
    """Text in which paths of this machine are shortened to their last part: a card is public."""
    return _PATH.sub(lambda path: path[0].rpartition("/")[2], text)
