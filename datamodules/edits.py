"""Bulk editing: the edits of ``predict``, from a manifest or a folder of recordings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from apa_lightning.adapters.scale import expand_scale
from apa_lightning.edit_jobs.manifest import Problems, read_manifest
from apa_lightning.edit_jobs.plan import Edit, folder_rows, plan_edits
from apa_lightning.edit_jobs.queue import EditBatch, EditQueue
from apa_lightning.edit_jobs.results import EditResults
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
        folder: Folder of recordings (.wav, .flac, .ogg, .mp3), all edited with `prompt`; instead of a manifest.
        recursive: Search the folder's subfolders too; results keep the subfolders.
        output: Folder of the results: one WAV per edit, results.jsonl and, at the end, results.csv.
        overwrite: Replace audio files in the output folder that predict has not made, or that were changed since.
        prompt: Text that the recordings shall become, c_y of Eq. 12: "a recording of a violin solo"; "" means unconditional.
        batch_size: Most edits with equal settings and lengths that are denoised together: faster on a GPU. Another value
            can change results by rounding, so keep it when a run is continued.
        tasks: Tasks of `evaluate`. They are accepted and ignored here, so that one overlay such as
            configs/tasks/timbre.yaml sets the operating point of both commands.
        settings: The knobs of every edit, see :class:`apa_lightning.editing.settings.EditSettings`.

    Raises:
        InputError: If a setting is out of its range, or anything is wrong with the manifest, recordings or outputs.
    """

    #: File name of the table of all results in the output folder.
    table_name = "results.csv"

    def __init__(
        self,
        manifest: str | None = None,
        folder: str | None = None,
        recursive: bool = False,
        output: str = "edits",
        overwrite: bool = False,
        prompt: str | None = None,
        batch_size: int = 1,
        tasks: list[dict[str, Any]] | None = None,
        **settings: Any,
    ):
        super().__init__()
        if manifest is not None and folder is not None:
            raise InputError("Can't provide both `manifest` and `folder`. Choose one.")
        if batch_size < 1:
            raise InputError(f"batch_size: {batch_size}; give 1 or more.")
        self.manifest, self.folder, self.recursive, self.overwrite = manifest, folder, recursive, overwrite
        self.output, self.batch_size = Path(output).expanduser(), batch_size
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
            rows = folder_rows(self.folder, self.recursive, self.output)
            source, base = f"folder: {self.folder}", Path()
        else:
            raise InputError("Nothing to edit: give `manifest` FILE, or `folder` FOLDER and `prompt` TEXT.")
        edits = plan_edits(rows, self.defaults, base, self.output, problems)
        problems.raise_any(source)
        return edits

    def setup(self, stage: str) -> None:
        """Check the edits against the model and the output folder, and line them up."""
        if stage != "predict":
            raise InputError(
                f"data: EditsDataModule has edits for 'predict', nothing for {stage!r}. Choose another class_path."
            )
        problems = Problems()
        self._check_against_model(problems)
        problems.raise_any("the edits")
        results = EditResults(self.output, self.table_name, rank_zero_warn)
        for edit in () if self.overwrite else self.edits:
            try:
                results.check_free(edit.output)
            except InputError as error:
                problems.add(edit.where, error)
        problems.raise_any(f"output: {self.output}")
        module = self._module()
        window_seconds = 0.0 if module is None else module.backbone.window_seconds
        self.queue = EditQueue(self.edits, results, self.batch_size, window_seconds, self._identity, rank_zero_info)

    def predict_dataloader(self) -> EditQueue:
        """Return the queue. It is not a DataLoader: nothing is loaded ahead, and ranks share the work as they are free."""
        assert self.queue is not None
        return self.queue

    def transfer_batch_to_device(
        self, batch: EditBatch, device: torch.device, dataloader_idx: int
    ) -> list[EditRequest]:
        """Unpack the requests; the editor moves their recordings to where its parts are."""
        return batch.requests

    def _module(self) -> Any:
        if self.trainer is None:
            return None
        module = self.trainer.lightning_module
        module.configure_model()  # Lightning would call it after this data module's setup
        return module

    def _check_against_model(self, problems: Problems) -> None:
        """Check what only the backbone knows: its schedulers, their steps, and the blocks that an `ap_scale` may name."""
        if (module := self._module()) is None:
            return

        def check_steps(name: str, steps: int) -> None:
            module.backbone.make_scheduler(name, steps)

        def check_scale(ap_scale: Any) -> None:
            scales = ap_scale if isinstance(ap_scale, list | tuple) else [ap_scale]
            if len(scales) != 1:
                raise InputError(f"ap_scale: {len(scales)} scales for one adapter; give one number.")
            expand_scale(scales[0], module.adapter.layer_names)

        module.backbone.make_scheduler(self.defaults["scheduler"])  # reported once, not for every edit
        check_scale(self.defaults["ap_scale"])
        found: dict[str, InputError | None] = {}  # edits mostly share their knobs
        for edit in self.edits:
            request = edit.request
            for check, values in (
                (check_steps, (request.scheduler, request.num_inference_steps)),
                (check_scale, (request.ap_scale,)),
            ):
                if (knobs := repr(values)) not in found:
                    found[knobs] = _complaint(check, values)
                if (error := found[knobs]) is not None:
                    problems.add(edit.where, error)

    def _identity(self) -> Callable[[EditRequest], Mapping[str, Any]]:
        """Everything besides a request that decides its sound: if it changes, the edit is made again."""
        module = self._module()
        parts = (
            {}
            if module is None
            else {
                "adapter": module.adapter.digest(),
                "backbone": module.backbone.name,
                "backbone_fingerprint": module.adapter.backbone_fingerprint.tolist(),
                "audio_encoder": module.adapter.metadata.get("audio_encoder"),
                **module.audio_encoder.conventions(),
                **module.backbone.identity(),
                "unconditional_audio": module.editor().unconditional_audio,
            }
        )
        return lambda request: parts


def _complaint(check: Callable[..., None], values: tuple) -> InputError | None:
    try:
        check(*values)
    except InputError as error:
        return error
    return None
