"""Bulk editing: what `predict` edits, from a manifest or a folder of recordings."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from apa_lightning.adapters.scale import expand_scale
from apa_lightning.edit_jobs.manifest import Problems, read_manifest
from apa_lightning.edit_jobs.plan import Edit, folder_rows, plan_edits
from apa_lightning.edit_jobs.queue import EditBatch, EditQueue
from apa_lightning.edit_jobs.results import EditResults
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.errors import InputError


class EditsDataModule(LightningDataModule):
    """Recordings to edit by text with `predict`: a manifest, or a folder and one prompt.

    Everything that is wrong with the input is reported at once before the first edit. Started again, `predict` makes
    only what is missing or has other settings than before; several processes share the work, whether of one run or not.
    The knobs below are defaults that a manifest's line can override; theirs are the paper's for timbre transfer.

    Args:
        manifest: CSV or JSONL file with one edit per line (see `apa_lightning.edit_jobs.manifest`).
        folder: Folder of recordings (.wav, .flac, .ogg, .mp3), all edited with `prompt`; instead of a manifest.
        recursive: Search the folder's subfolders too; results keep the subfolders.
        output: Folder of the results: one WAV per edit, results.jsonl and, at the end, results.csv.
        overwrite: Replace audio files in the output folder that predict has not made, or that were changed since.
        prompt: c_y, what the recordings shall become: "a recording of a violin solo"; "" means unconditional.
        negative_prompt: c_y- of Eq. 12, what they shall not be: "a recording of the piano solo".
        ap_scale: alpha, how strongly a recording is kept; a number, or a mapping for single blocks ({"up": 0.5}).
            Paper: 0.5, genre transfer 0.4.
        time_pooling: omega along time (1, 2, 4 or 8): larger keeps less of the recording. Paper: 2, genre transfer 1.
        freq_pooling: omega along frequency; null: as time_pooling.
        guidance_scale: lambda of Eq. 12; 1 or less means no guidance. Paper: 7.5.
        num_inference_steps: Denoising steps of the whole schedule. Paper: 50.
        strength: Share of the schedule that is run from the recording under noise (SDEdit); 1: from pure noise, as the paper.
        scheduler: A diffusers scheduler that is compatible with the backbone's.
        seed: Of the initial noise.
        region: [start, end] in seconds: only this part is edited.
        sample_rate: Of the results in Hz; null: the recording's.
        match_level: Give the results the recordings' loudness (RMS).
        batch_size: Edits with equal knobs and lengths that are denoised together: faster on a GPU. Its value can change
            results by rounding, so keep it when a run is continued.

    Raises:
        InputError: a knob outside its range.
    """

    #: The table of all results in the output folder.
    table_name = "results.csv"

    def __init__(
        self,
        manifest: str | None = None,
        folder: str | None = None,
        recursive: bool = False,
        output: str = "edits",
        overwrite: bool = False,
        prompt: str | None = None,
        negative_prompt: str = "",
        ap_scale: float | list[Any] | dict[str, Any] = 0.5,
        time_pooling: int = 2,
        freq_pooling: int | None = None,
        guidance_scale: float = 7.5,
        num_inference_steps: int = 50,
        strength: float = 1.0,
        scheduler: str = "DDIMScheduler",
        seed: int = 0,
        region: tuple[float, float] | None = None,
        sample_rate: int | None = None,
        match_level: bool = True,
        batch_size: int = 1,
    ):
        super().__init__()
        if manifest is not None and folder is not None:
            raise InputError("Can't provide both --data.manifest and --data.folder. Choose one.")
        if batch_size < 1:
            raise InputError(f"--data.batch_size: {batch_size}; give 1 or more.")
        self.manifest, self.folder, self.recursive, self.overwrite = manifest, folder, recursive, overwrite
        self.output, self.batch_size = Path(output).expanduser(), batch_size
        self.defaults: dict[str, Any] = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "ap_scale": ap_scale,
            "time_pooling": time_pooling,
            "freq_pooling": freq_pooling,
            "guidance_scale": guidance_scale,
            "num_inference_steps": num_inference_steps,
            "strength": strength,
            "scheduler": scheduler,
            "seed": seed,
            "region": tuple(region) if region else None,
            "sample_rate": sample_rate,
            "match_level": match_level,
        }
        EditRequest(
            **{**self.defaults, "audio": "", "prompt": prompt or ""}
        )  # refuses a bad default here, not for every line
        self.edits = self.read_edits()  # before a model is loaded
        self.queue: EditQueue | None = None

    def read_edits(self) -> list[Edit]:
        """The checked edits. Needs neither a model nor a Trainer.

        Raises:
            FileNotFoundError, InputError: all that is wrong with the manifest, the recordings and the outputs, at once.
        """
        problems = Problems()
        if self.manifest is not None:
            rows = read_manifest(
                self.manifest, ("audio",) if self.defaults["prompt"] is not None else ("audio", "prompt"), problems
            )
            source, base = f"--data.manifest {self.manifest}", Path(self.manifest).parent
        elif self.folder is not None:
            if self.defaults["prompt"] is None:
                raise InputError("--data.prompt: is missing; a folder of recordings needs one. Or write a manifest.")
            rows, source, base = (
                folder_rows(self.folder, self.recursive, self.output),
                f"--data.folder {self.folder}",
                Path(),
            )
        else:
            raise InputError(
                "Nothing to edit: give --data.manifest FILE, or --data.folder FOLDER and --data.prompt TEXT."
            )
        edits = plan_edits(rows, self.defaults, base, self.output, problems)
        problems.raise_any(source)
        return edits

    def setup(self, stage: str) -> None:
        if stage != "predict":
            raise InputError(
                f"data: EditsDataModule has edits for 'predict', nothing for {stage!r}. Choose another class_path."
            )
        edits, problems = self.edits, Problems()
        self._check_against_model(edits, problems)
        problems.raise_any("the edits")
        results = EditResults(self.output, self.table_name)
        if not self.overwrite:
            problems = Problems()
            for edit in edits:
                try:
                    results.check_free(edit.output)
                except InputError as error:
                    problems.add(edit.where, error)
            problems.raise_any(f"--data.output {self.output}")
        module = self._module()
        window_seconds = 0.0 if module is None else module.backbone.window_seconds
        self.queue = EditQueue(edits, results, self.batch_size, window_seconds, self._identity)

    def predict_dataloader(self) -> EditQueue:
        """Not a DataLoader: nothing is loaded ahead, and Lightning's sampler would give each rank a fixed share."""
        assert self.queue is not None
        return self.queue

    def transfer_batch_to_device(
        self, batch: EditBatch, device: torch.device, dataloader_idx: int
    ) -> list[EditRequest]:
        """Nothing is moved: the editor does it, to where its parts are."""
        return batch.requests

    def path_of(self, result: EditResult) -> Path:
        """Where `result` belongs."""
        assert self.queue is not None
        return self.output / self.queue.edits[result.request.name].output

    def _module(self) -> Any:
        if self.trainer is None:
            return None
        module = self.trainer.lightning_module
        module.configure_model()  # Lightning would call it after this data module's setup
        return module

    def _check_against_model(self, edits: list[Edit], problems: Problems) -> None:
        """What only the backbone knows: its schedulers, their steps, and the blocks that an `ap_scale` may name."""
        if (module := self._module()) is None:
            return

        def check_steps(name: str, steps: int) -> None:
            module.backbone.make_scheduler(name, steps)

        def check_scale(ap_scale: Any) -> None:
            scales = ap_scale if isinstance(ap_scale, list | tuple) else [ap_scale]
            if len(scales) != 1:
                raise InputError(f"ap_scale: {len(scales)} scales for one adapter; give one number.")
            expand_scale(scales[0], module.adapter.layer_names)

        module.backbone.make_scheduler(self.defaults["scheduler"])  # said once, not for every edit
        check_scale(self.defaults["ap_scale"])
        found: dict[str, InputError | None] = {}  # edits mostly share their knobs
        for edit in edits:
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
        """What decides a request's sound besides itself: a change of it makes the edit anew."""
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
