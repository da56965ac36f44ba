"""What `evaluate` edits: every source of a set, towards every target of its tasks, by every system."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apa_lightning.edit_jobs.manifest import ManifestRow, Problems
from apa_lightning.edit_jobs.plan import Edit, plan_edits
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.evaluation.rows import KNOBS
from apa_lightning.evaluation.systems import Adapter, SDEdit, System, SystemRequest, make_systems
from apa_lightning.evaluation.tasks import POINT, Task, check_names
from datamodules.edits import EditsDataModule
from datamodules.evaluation_sets import Source, chosen, read_set

#: The systems of the paper's tables and ablation, and what they are read against.
SYSTEMS = ("adapter", "no_negative", "text_only", "sdedit", "no_op", "codec")
#: Fig. 2 of the paper: one knob at a time, the others at the task's operating point.
GRID: dict[str, tuple[Any, ...]] = {
    "time_pooling": (1, 2, 4, 8),
    "ap_scale": (0.2, 0.4, 0.6, 0.8, 1.0),
    "guidance_scale": (1.5, 3.5, 5.5, 7.5, 9.5),
    "strength": (0.5, 0.6, 0.7, 0.8, 0.9),
}


@dataclass(frozen=True)
class Planned:
    """One edit of an evaluation.

    Attributes:
        about: by ``rows.ABOUT``. knobs: by ``rows.KNOBS``. task, source: what it belongs to. source_text: what CLAP
            compares the source with.
    """

    about: dict[str, str]
    knobs: dict[str, Any]
    task: Task
    source: Source
    source_text: str


class EvaluationDataModule(EditsDataModule):
    """Sources whose instrument is known, to be edited by several systems side by side: same sources, prompts and seeds.

    Made and kept as `predict` makes and keeps its edits: stopped and started again, only what is missing or depends on
    what was changed is made. With a `prompt` or `manifest` it is `predict`'s own EditsDataModule.

    Args:
        tasks: What the sources shall become: configs/tasks/*.yaml.
        sources: `embedded` (40 held-out solos, 8 instruments), a folder of recordings named by their instrument
            (piano_0.wav), or shards whose JSON names it (*.tar).
        instruments: CSV with the columns `file` and `instrument`, for a folder whose files are named otherwise.
        num_sources: Use so many of them, the instruments in turn; null: all.
        targets_per_source: Targets for each source and task.
        systems: Among adapter, no_negative, text_only, sdedit, untrained, no_op, codec and musicgen_melody.
        musicgen: Folder or hub id of MusicGen-Melody (facebook/musicgen-melody); given, it takes part.
        grid: Values of knobs to try beside the operating point: {ap_scale: [0.2, 0.8], strength: [0.5]}; strength is
            SDEdit's, the others are the adapter's.
        product: Try every combination of the grid's values instead of one knob at a time.
        clap: CLAP folder or hub id of the scores; null: the one that the backbone itself reads prompts with.
        embedding: Of FAD and KAD: `clap`, or `vggish`.
        vggish: The file vggish-10086976.pth.
        reference: Folder or shards of recordings that FAD and KAD compare with; null: the set's own sources.
        output: Folder of the evaluation.
        manifest, folder: For `predict`, see EditsDataModule.
        edits: All other settings of EditsDataModule: the operating point, the seed of the initial noise (every edit has its
            own, derived from it, and every system the same), the batch size.

    Raises:
        InputError: a setting cannot be.
    """

    def __init__(
        self,
        tasks: list[Task] | None = None,
        sources: str = "embedded",
        instruments: Path | None = None,
        num_sources: int | None = None,
        targets_per_source: int = 1,
        systems: Sequence[str] = SYSTEMS,
        musicgen: str | None = None,
        grid: dict[str, list[Any]] | None = None,
        product: bool = False,
        clap: str | None = None,
        embedding: str = "clap",
        vggish: str | None = None,
        reference: str | None = None,
        output: str = "evaluation",
        manifest: str | None = None,
        folder: str | None = None,
        **edits: Any,
    ):
        self.tasks, self.planned = tasks or [], {}
        self.is_evaluation = manifest is None and folder is None
        if self.is_evaluation:
            self.table_name = "edits.csv"  # results.csv has the figures too
        self.sources, self.instruments, self.num_sources = sources, instruments, num_sources
        if targets_per_source < 1:
            raise InputError(f"--data.targets_per_source: {targets_per_source}; give 1 or more.")
        self.targets_per_source, self.product = targets_per_source, product
        self.clap, self.embedding, self.vggish, self.reference = clap, embedding, vggish, reference
        if embedding not in ("clap", "vggish"):
            raise InputError(f"--data.embedding: {embedding!r} is unknown; choose clap or vggish.")
        self.systems = {one.name: one for one in self._systems(systems, musicgen, grid or {})}
        self.set_name = ""
        super().__init__(manifest=manifest, folder=folder, output=output, **edits)

    def _systems(self, names: Sequence[str], musicgen: str | None, grid: Mapping[str, Sequence[Any]]) -> list[System]:
        if unknown := sorted(set(grid) - set(POINT)):
            raise InputError(f"--data.grid: {', '.join(unknown)} is no knob; choose from {', '.join(POINT)}.")
        if empty := [name for name, values in grid.items() if not isinstance(values, list | tuple) or not values]:
            raise InputError(f"--data.grid: {empty[0]} needs a list of values.")
        for name, value in ((name, value) for name, values in grid.items() for value in values):
            try:
                EditSettings.check(name, value)
            except InputError as error:
                raise InputError(f"--data.grid: {error}") from None
        systems = make_systems(names, musicgen)
        ours = {name: list(dict.fromkeys(values)) for name, values in grid.items() if name != "strength"}
        if self.product and ours:
            systems += [Adapter(dict(zip(ours, values, strict=True))) for values in itertools.product(*ours.values())]
        else:
            systems += [Adapter({name: value}) for name, values in ours.items() for value in values]
        return systems + [SDEdit({"strength": value}) for value in dict.fromkeys(grid.get("strength", ()))]

    # --- what is edited -----------------------------------------------------------------------------------------------

    def read_edits(self) -> list[Edit]:
        """The checked edits, by task, system and source.

        Raises:
            FileNotFoundError, InputError: as :class:`EditsDataModule`'s; a set or task that cannot be used.
        """
        if not self.is_evaluation:
            return super().read_edits()
        check_names(self.tasks)
        self.set_name, every = read_set(self.sources, self.instruments, self.output)
        sources = chosen(every, self.num_sources, self.tasks)
        problems, edits = Problems(), []
        rows: list[tuple[ManifestRow, System, Planned]] = []
        for task in self.tasks:
            for system in self.systems.values():
                rows += self._rows(task, system, sources)
        planner_rows = [row for row, _, _ in rows]
        made = {edit.id: edit for edit in plan_edits(planner_rows, self.defaults, Path(), self.output, problems)}
        problems.raise_any(f"--data.sources {self.sources}")
        for row, system, planned in rows:
            edit = made[row.values["id"]]
            request = SystemRequest(**{**vars(edit.request), "system": system.name})
            edits.append(dataclasses.replace(edit, request=request))
            self.planned[edit.id] = planned
        return edits

    def _rows(self, task: Task, system: System, sources: Sequence[Source]) -> list[tuple[ManifestRow, System, Planned]]:
        rows: list[tuple[ManifestRow, System, Planned]] = []
        number = 0
        for place, source in enumerate(sources):
            for target in task.targets_for(source.instrument, place, self.targets_per_source):
                texts = task.texts(source.instrument, target)
                point = {knob: self.defaults[knob] for knob in POINT} | dict(task.point)
                values = {**point, **texts, "seed": self.defaults["seed"] * 100_003 + number}
                number += 1
                settings = system.settings(values)
                plain = self.systems.get(type(system).name, system)
                if plain is not system and plain.settings(values) == settings:
                    continue  # the grid's value is the operating point's
                rows.append(self._row(task, system, source, target, texts, settings))
        return rows

    def _row(
        self, task: Task, system: System, source: Source, target: str, texts: dict[str, str], settings: dict[str, Any]
    ) -> tuple[ManifestRow, System, Planned]:
        name = f"{source.name}-to-{target.replace(' ', '_')}"
        output = f"audio/{task.name}/{system.name.replace(' ', '_')}/{name}.wav"
        values = {
            **{knob: _unread(knob) for knob in (*KNOBS, "prompt", "negative_prompt")}, **settings,
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
        where = f"{task.name}, {system.name}, {source.name}"
        return ManifestRow(where, values), system, Planned(about, knobs, task, source, texts["source_text"])

    # --- how it is made -----------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.is_evaluation:
            for system in self.systems.values():
                system.check()

    def edit(self, editor: AudioEditor, requests: Sequence[EditRequest]) -> list[EditResult]:
        """The results of requests to one system."""
        return self.systems[requests[0].system].edit(editor, requests)  # type: ignore[attr-defined]

    def _identity(self) -> Callable[[EditRequest], Mapping[str, Any]]:
        """What decides the sound besides the request: the parts that its system uses, and no other."""
        if not self.is_evaluation:
            return super()._identity()
        every = super()._identity()(EditRequest(audio="", prompt=""))
        uses = {
            "adapter": ("adapter", "unconditional_audio"),
            "backbone": ("backbone", "backbone_fingerprint", "vocoder"),
            "audio_encoder": ("audio_encoder", "loa_layers"),
        }

        def of(request: EditRequest) -> Mapping[str, Any]:
            system = self.systems[request.system]  # type: ignore[attr-defined]
            names = [name for part in system.parts for name in uses[part]]
            return {**{name: every[name] for name in names if name in every}, **system.identity()}

        return of


def _unread(name: str) -> Any:
    """What a request has where its system does not read a setting."""
    return "" if name == "prompt" else EditRequest.__dataclass_fields__[name].default
