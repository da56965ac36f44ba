"""The settings of ``evaluate``: what is edited, by which systems, and what is measured."""

from pathlib import Path
from typing import Any, Literal

from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.evaluation.grid import FIG_2, grid_systems
from apa_lightning.evaluation.plan import EvaluationPlan
from apa_lightning.evaluation.systems import DEFAULT, System, make_systems
from apa_lightning.evaluation.tasks import Task
from apa_lightning.metrics import EditMetric, SetMetric
from datamodules.evaluation_sets import chosen, read_set


class EvaluationSet:
    """Recordings whose instrument is known, to be edited by several systems with the same prompts and seeds.

    Everything is checked when the object is made, before a model is loaded.

    Args:
        tasks: What the recordings shall become: configs/tasks/*.yaml.
        sources: `embedded` (40 held-out solos, 8 instruments), a folder of recordings named by their instrument
            (piano_0.wav), or shards whose JSON names it (*.tar).
        instruments: CSV with the columns `file` and `instrument`, for a folder whose files are named otherwise.
        num_sources: Number of recordings to use, the instruments in turn; null: all.
        targets_per_source: Most targets for each recording and task.
        systems: Names among adapter, no_negative, text_only, sdedit, ddpm_inversion, direct_audio_edit, untrained, no_op, codec
            and musicgen_melody, or any :class:`apa_lightning.evaluation.systems.System` by `class_path`; null: those that the
            backbone can run of adapter, no_negative, text_only, sdedit, no_op and codec.
        musicgen: Folder or hub id of MusicGen-Melody (facebook/musicgen-melody); if it is given, MusicGen takes part.
        grid: Values of knobs to try in addition to the operating point: {ap_scale: [0.2, 0.8], strength: [0.5]}, or `fig2`,
            the paper's. `strength` is SDEdit's, the others are the adapter's.
        product: Try every combination of the grid's values instead of one knob at a time.
        metrics: Metrics by `class_path`: of edits, in the order of their columns in results.csv, and of sets.
        clap: CLAP folder or hub id for the scores; null: the one that the backbone itself reads prompts with.
        embedding: Embedding for distances between sets (FAD, KAD): `clap` or `vggish`.
        vggish: Path of vggish-10086976.pth.
        reference: Folder or shards of recordings that distances between sets compare with; null: the set's own sources.
        output: Folder of the evaluation.
        overwrite: Replace audio files in the output folder that evaluate has not made, or that were changed since.
        batch_size: Most edits with equal settings and lengths that are denoised together: faster on a GPU. Another value
            can change results by rounding, so keep it when a run is continued.
        settings: The operating point, where a task has no other (null: the backbone's defaults), and the seed from which each
            edit's own is derived; see :class:`apa_lightning.editing.settings.EditSettings`.

    Raises:
        FileNotFoundError: If there is no such folder, file or shard.
        InputError: If a setting is out of its range, or if recordings cannot be used.
    """

    def __init__(
        self,
        tasks: list[Task] | None = None,
        sources: str = "embedded",
        instruments: Path | None = None,
        num_sources: int | None = None,
        targets_per_source: int = 1,
        systems: list[str | System] | None = None,
        musicgen: str | None = None,
        grid: Literal["fig2"] | dict[str, list[Any]] | None = None,
        product: bool = False,
        metrics: list[EditMetric | SetMetric] | None = None,
        clap: str | None = None,
        embedding: Literal["clap", "vggish"] = "clap",
        vggish: str | None = None,
        reference: str | None = None,
        output: str = "evaluation",
        overwrite: bool = False,
        batch_size: int = 1,
        **settings: Any,
    ):
        if batch_size < 1:
            raise InputError(f"batch_size: {batch_size}; give 1 or more.")
        self.metrics, self.batch_size, self.overwrite = metrics or [], batch_size, overwrite
        self.clap, self.embedding, self.vggish = clap, embedding, vggish
        folder = Path(output).expanduser()
        chosen_systems = make_systems(DEFAULT if systems is None else systems, musicgen)
        self.grid = grid
        points = grid_systems(FIG_2 if grid == "fig2" else grid or {}, product)
        optional = [*(DEFAULT if systems is None else ()), *(one.name for one in points if grid == "fig2")]
        set_name, every = read_set(sources, instruments, folder)
        self.plan = EvaluationPlan(
            tasks or [],
            chosen(every, num_sources, tasks or []),
            chosen_systems + points,
            EditSettings(**settings),
            folder,
            set_name,
            targets_per_source,
            optional=optional,
        )
        self.reference_name = reference
        self.reference = None if reference is None else [one.path for one in read_set(reference, None, folder)[1]]
