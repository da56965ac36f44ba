"""Bulk editing: the edits of ``predict``, from a manifest or a folder of recordings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from apa_lightning.edit_jobs.editor_checks import check_against_editor, identity_of
from apa_lightning.edit_jobs.manifest import Problems, read_manifest
from apa_lightning.edit_jobs.parts import Part
from apa_lightning.edit_jobs.plan import Edit, folder_rows, plan_edits
from apa_lightning.edit_jobs.queue import EditBatch, EditQueue
from apa_lightning.edit_jobs.results import EditResults
from apa_lightning.editing.knobs import Text
from apa_lightning.editing.request import EditRequest
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError


class EditsDataModule(LightningDataModule):
    """Recordings to edit by text with `predict`: a manifest, or a folder and one prompt.

    Everything that is wrong with the input is reported at once before the first edit. When it is started again, `predict` makes
    only edits that are missing or have other settings than before; several processes can share the work, of one run or of
    several. A manifest's line can override the settings.

    Args:
        manifest: CSV or JSONL file with one edit per line (see `apa_lightning.edit_jobs.manifest`).
        folder: Folder of recordings (WAV, FLAC, OGG, Opus, MP3, AIFF and more), all edited with `prompt`; instead of a
            manifest.
        recursive: Search the folder's subfolders too; results keep the subfolders.
        output: Folder of the results: one WAV per edit, results.jsonl and, at the end, results.csv.
        skip_unreadable: Leave out recordings that cannot be read, are silent, or too short or long, and edit the others: they
            are named in the summary and results.jsonl. Otherwise one of them stops the command before any edit.
        overwrite: Replace audio files in the output folder that predict has not made, or that were changed since.
        prompt: Text that the recordings shall become, c_y of Eq. 12: "a recording of a violin solo"; "" means unconditional.
        batch_size: Most edits with equal settings and lengths that are denoised together: faster on a GPU. Another value
            can change results by rounding, so keep it when a run is continued.
        tasks: Tasks of `evaluate`. They are accepted and ignored here, so that one overlay such as
            configs/tasks/timbre.yaml sets the operating point of both commands.
        part: Make only this part of the edits, such as 3/16, as one task of a job array that shares `output`; `slurm` takes
            the place of the task in SLURM's array.
        settings: The knobs of every edit, see :class:`apa_lightning.editing.settings.EditSettings`.

    Raises:
        InputError: If a setting is out of its range, or anything is wrong with the manifest, recordings or outputs.
    """

    def __init__(
        self,
        manifest: str | None = None,
        folder: str | None = None,
        recursive: bool = False,
        output: str = "edits",
        skip_unreadable: bool = False,
        overwrite: bool = False,
        prompt: Text | None = None,
        batch_size: int = 1,
        tasks: list[dict[str, Any]] | None = None,
        part: str | None = None,
        **settings: Any,
    ):
        super().__init__()
        if manifest is not None and folder is not None:
            raise InputError("Can't provide both `manifest` and `folder`. Choose one.")
        if batch_size < 1:
            raise InputError(f"batch_size: {batch_size}; give 1 or more.")
        self.manifest, self.folder, self.recursive, self.overwrite = manifest, folder, recursive, overwrite
        self.output, self.batch_size = Path(output).expanduser(), batch_size
        self.skip_unreadable, self.part = skip_unreadable, Part.read(part)
        self.left_out = ""  # sound files of the folder in formats that are not read
        self.settings = EditSettings(**settings)
        self.defaults: dict[str, Any] = {"prompt": prompt, **vars(self.settings)}
        self.edits = self.read_edits()  # before a model is loaded
        self.queue: EditQueue | None = None

    def read_edits(self) -> list[Edit]:
        """The checked edits. Needs neither a model nor a Trainer.

        Raises:
            FileNotFoundError: If there is no such manifest or folder.
            InputError: If anything is wrong with the manifest, the recordings and the outputs, all of it at once.
        """
        problems = Problems()
        if self.manifest is not None:
            required = ("audio",) if self.defaults["prompt"] is not None else ("audio", "prompt")
            rows = read_manifest(self.manifest, required, problems)
            source, base = f"manifest: {self.manifest}", Path(self.manifest).parent
        elif self.folder is not None:
            if self.defaults["prompt"] is None:
                raise InputError("prompt: is missing; a folder of recordings needs one. Or write a manifest.")
            rows, self.left_out = folder_rows(self.folder, self.recursive, self.output)
            source, base = f"folder: {self.folder}", Path()
        else:
            raise InputError("Nothing to edit: give `manifest` FILE, or `folder` FOLDER and `prompt` TEXT.")
        edits = plan_edits(rows, self.defaults, base, self.output, problems, self.skip_unreadable)
        problems.raise_any(source)
        return edits

    def setup(self, stage: str) -> None:
        """Check the edits against the model and the output folder, and line them up."""
        if stage != "predict":
            raise InputError(
                f"data: EditsDataModule has edits for 'predict', nothing for {stage!r}. Choose another class_path."
            )
        module: Any = None if self.trainer is None else self.trainer.lightning_module
        if module is not None:
            module.configure_model()  # Lightning would call it after this data module's setup
            self.edits = check_against_editor(self.edits, self.settings, module.editor())
        if self.left_out:
            rank_zero_info(f"predict: {self.folder}: {self.left_out}.")
        results = EditResults(self.output, warn=rank_zero_warn)
        results.check_all_free(self.edits, self.overwrite)
        self.queue = EditQueue(
            self.edits,
            results,
            self.batch_size,
            window_seconds=0.0 if module is None else module.backbone.window_seconds,
            identity=lambda: _same_for_all({} if module is None else identity_of(module.editor())),
            announce=lambda line: rank_zero_info(f"predict: {line}"),
            skip_unreadable=self.skip_unreadable,
            part=self.part,
        )

    def predict_dataloader(self) -> EditQueue:
        """Return the queue. It is not a DataLoader: nothing is loaded ahead, and ranks share the work as they are free."""
        assert self.queue is not None
        return self.queue

    def transfer_batch_to_device(
        self, batch: EditBatch, device: torch.device, dataloader_idx: int
    ) -> list[EditRequest]:
        """Unpack the requests; the editor moves their recordings to where its parts are."""
        return batch.requests


def _same_for_all(parts: dict[str, dict[str, Any]]) -> Callable[[EditRequest], Mapping[str, Any]]:
    identity = {name: value for part in parts.values() for name, value in part.items()}
    return lambda request: identity
