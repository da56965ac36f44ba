"""The plan of an evaluation: every source of a set, towards every target of its tasks, by every system."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apa_lightning.edit_jobs.manifest import ManifestRow, Problems
from apa_lightning.edit_jobs.plan import Edit, plan_edits
from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.knobs import WHY_MISSING, knobs_of
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.evaluation.rows import KNOBS
from apa_lightning.evaluation.summary import family_of
from apa_lightning.evaluation.systems import System, SystemRequest
from apa_lightning.evaluation.tasks import POINT, Task, check_names


@dataclass(frozen=True)
class Source:
    """A recording to edit.

    Attributes:
        name: Its name in files and tables.
        path: Its file.
        instrument: What plays in it, for example "piano".
    """

    name: str
    path: Path
    instrument: str


@dataclass(frozen=True)
class PlannedEdit:
    """One edit of an evaluation.

    Attributes:
        edit: The edit, as for ``predict``.
        about: Facts about it, by ``rows.ABOUT``.
        knobs: Knobs of its system, by ``rows.KNOBS``.
        task: Its task.
        source: Its source.
        source_text: Text that describes the source.
    """

    edit: Edit
    about: dict[str, str]
    knobs: dict[str, Any]
    task: Task
    source: Source
    source_text: str


class EvaluationPlan:
    """All edits of an evaluation, checked before a model is loaded.

    Each system makes the same sources, prompts and seeds. Every edit has its own seed, derived from that of the settings.

    Args:
        tasks: The tasks.
        sources: The recordings.
        systems: The systems.
        settings: The operating point, where a task does not fix another one, and the seed.
        output: Folder of the evaluation.
        set_name: Name of the set of recordings.
        targets_per_source: Most targets of each source and task.
        defaults: Values of the knobs that nobody sets; None: they are not known yet.
        optional: Names of systems that nobody asked for: one that the backbone cannot run is left out.

    Attributes:
        edits: The planned edits by id, ordered by task, system and source.
        left_out: Names of the systems that are left out.

    Raises:
        InputError: If a setting is out of range, or if recordings cannot be used; the message lists all of them.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        sources: Sequence[Source],
        systems: Sequence[System],
        settings: EditSettings,
        output: Path,
        set_name: str = "",
        targets_per_source: int = 1,
        defaults: EditDefaults | None = None,
        optional: Collection[str] = (),
    ):
        check_names(tasks)
        if targets_per_source < 1:
            raise InputError(f"targets_per_source: {targets_per_source}; give 1 or more.")
        self.tasks, self.sources, self.settings, self.defaults = list(tasks), list(sources), settings, defaults
        self.optional = optional
        self.left_out = self._unable(systems)
        systems = [system for system in systems if system.name not in self.left_out]
        self.systems = {system.name: system for system in systems}
        self.output, self.set_name, self.targets_per_source = output, set_name, targets_per_source
        self.edits: dict[str, PlannedEdit] = {}
        rows = [entry for task in tasks for system in systems for entry in self._rows(task, system)]
        problems = Problems()
        values = {"prompt": "", **vars(settings)}
        made = {edit.id: edit for edit in plan_edits([row for row, *_ in rows], values, Path(), output, problems)}
        problems.raise_any("sources")
        for row, more, facts in rows:
            edit = made[row.values["id"]]
            request = SystemRequest(**{**vars(edit.request), **more})
            self.edits[edit.id] = PlannedEdit(dataclasses.replace(edit, request=request), **facts)

    def with_defaults(self, defaults: EditDefaults) -> "EvaluationPlan":
        """The same plan with the values of the knobs that nobody sets, which the backbone stores for each task."""
        systems = [*self.systems.values()]
        more = self.output, self.set_name, self.targets_per_source, defaults, self.optional
        return EvaluationPlan(self.tasks, self.sources, systems, self.settings, *more)

    def _unable(self, systems: Sequence[System]) -> list[str]:
        """The names of the systems that the backbone, where it is known, cannot run.

        Raises:
            InputError: If one of them is not optional.
        """
        if self.defaults is None:
            return []
        unable = [system.name for system in systems if system.sampling not in ("", self.defaults.sampling)]
        asked = [name for name in unable if name not in self.optional]
        points = [name for name in asked if family_of(name) != name]
        for field, names in (("systems", [name for name in asked if name not in points]), ("grid", points)):
            if names:
                raise InputError(
                    f"{field}: {', '.join(names)} cannot be run with this backbone: {WHY_MISSING[self.defaults.sampling]}. "
                    f"Leave {'it' if len(names) == 1 else 'them'} out."
                )
        return unable

    def _settings(self, task: Task, system: System, values: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a system reads, with the task's defaults where they are known."""
        settings = system.settings(values)
        if self.defaults is None:
            return settings
        return self.defaults.filled(settings, task.name if task.name in self.defaults.tasks else self.settings.task)

    def _unread(self) -> dict[str, Any]:
        """The settings of a request whose system does not read them."""
        sampling = (self.defaults or EditDefaults()).sampling
        return {"prompt": ""} | {
            name: default if knob.paper is None or not knob.belongs_to(sampling) else knob.paper
            for name, (knob, default) in knobs_of(EditSettings).items()
            if name in (*KNOBS, "negative_prompt", "extend")
        }

    def _rows(self, task: Task, system: System) -> list[tuple[ManifestRow, dict[str, str], dict[str, Any]]]:
        """For each edit of one system and task the row of a manifest, and more fields of its request and of its plan."""
        rows = []
        number = 0
        for place, source in enumerate(self.sources):
            for target in task.targets_for(source.instrument, place, self.targets_per_source):
                texts = task.texts(source.instrument, target)
                point = {knob: getattr(self.settings, knob) for knob in POINT} | dict(task.point)
                if point["audio_prompts"]:
                    point["audio_prompts"] = [
                        _with_names(entry, source=source.instrument, target=target) for entry in point["audio_prompts"]
                    ]
                seed = self.settings.seed * 100_003 + number
                values = {**point, **texts, "extend": self.settings.extend, "seed": seed}
                number += 1
                settings = self._settings(task, system, values)
                plain = self.systems.get(family_of(system.name), system)
                if plain is not system and self._settings(task, plain, values) == settings:
                    continue  # the grid's value is the operating point's
                rows.append(self._row(task, system, source, target, texts, settings))
        return rows

    def _row(
        self,
        task: Task,
        system: System,
        source: Source,
        target: str,
        texts: dict[str, str],
        settings: dict[str, Any],
    ) -> tuple[ManifestRow, dict[str, str], dict[str, Any]]:
        request = {"system": system.name, "source_text": settings.pop("source_text", "")}
        name = f"{source.name}-to-{target.replace(' ', '_')}"
        output = f"audio/{task.name}/{system.name.replace(' ', '_')}/{name}.wav"
        values = {
            **self._unread(), **settings,
            "id": f"{task.name}/{system.name}/{name}", "audio": str(source.path), "output": output,
        }  # fmt: skip
        about = {
            "id": name, "task": task.name, "system": system.name, "set": self.set_name, "source": source.name,
            "instrument": source.instrument, "target": target, "prompt": settings.get("prompt", ""),
            "negative_prompt": settings.get("negative_prompt", ""), "score_text": texts["score_text"],
            "audio": f"audio/{task.name}/no_op/{name}.wav" if "no_op" in self.systems else str(source.path),
            "output": output,
        }  # fmt: skip
        knobs = {knob: settings.get(knob) for knob in KNOBS}
        facts = {"about": about, "knobs": knobs, "task": task, "source": source, "source_text": texts["source_text"]}
        return ManifestRow(f"{task.name}, {system.name}, {source.name}", values), request, facts


def _with_names(entry: Mapping[str, Any], **names: str) -> dict[str, Any]:
    """An entry of ``audio_prompts`` with the names in its file's ``{source}`` and ``{target}``."""
    audio = entry.get("audio")
    if not isinstance(audio, str):
        return dict(entry)
    for name, value in names.items():
        audio = audio.replace(f"{{{name}}}", value.replace(" ", "_"))
    return {**entry, "audio": audio}
