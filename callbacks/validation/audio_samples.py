"""Edits to listen to and to look at: source, edited and text-only, as files and in the loggers."""

import json
from pathlib import Path

import lightning as L

from apa_lightning.audio import save_audio
from apa_lightning.errors import InputError
from apa_lightning.module import AudioPromptModule
from apa_lightning.utils.atomic_files import remove_leftovers, write_file
from apa_lightning.utils.lightning_compat import is_fast_dev_run
from callbacks.loggers import log_audio, log_image
from callbacks.run_folder import run_folder
from callbacks.validation.edits import EditsCallback, ValidationEdit
from callbacks.validation.plan import ValidationPlan, file_name
from callbacks.validation.spectrogram import save_png, spectrogram_picture

PARTS = ("source", "edited", "text_only")


class AudioSamples(EditsCallback):
    """Writes the validation edits as audio files and pictures, and logs them.

    The files are ``<run folder>/<name>/step-000100/CLIP-to-TARGET-{source,edited,text_only}.wav``, a spectrogram picture
    of the three, and ``edits.jsonl`` with every setting. Audio and pictures also go to each logger that takes them.
    Only the first process edits and writes. A fast development run edits but leaves no files.

    Args:
        plan: Clips to edit, and the settings of the edits.
        every_n_validations: Number of validations from one with edits to the next; the first one has edits.
        during_sanity_check: Edit also in the sanity check before training.
        name: Name of the folder and of the group in the loggers; give two of these callbacks different names.
    """

    every_process = False

    def __init__(
        self,
        plan: ValidationPlan = ValidationPlan(),
        every_n_validations: int = 1,
        during_sanity_check: bool = False,
        name: str = "samples",
    ):
        super().__init__(plan, every_n_validations, during_sanity_check)
        if file_name(name) != name:
            raise InputError(f"name: {name!r} must be usable as a folder name; try {file_name(name)!r}.")
        self.name = name
        self._folder: Path | None = None
        self._logged: set[str] = set()

    def setup(self, trainer: L.Trainer, pl_module: AudioPromptModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._folder = run_folder(trainer) / self.name

    def on_edits(self, trainer: L.Trainer, module: AudioPromptModule, edits: list[ValidationEdit]) -> None:
        if is_fast_dev_run(trainer) or not edits:
            return
        assert self._folder is not None  # setup has named it
        folder = self._folder / f"step-{trainer.global_step:06d}"
        remove_leftovers(folder)
        for edit in edits:
            self._write(edit, folder, trainer)
        lines = [json.dumps({"step": trainer.global_step, **edit.edited.record()}) for edit in edits]
        write_file(folder / "edits.jsonl", "\n".join(lines) + "\n")

    def _write(self, edit: ValidationEdit, folder: Path, trainer: L.Trainer) -> None:
        request, rate = edit.edited.request, edit.edited.sample_rate
        waveforms = dict(
            zip(PARTS, (edit.plan.clip.waveform, edit.edited.waveform, edit.text_only.waveform), strict=True)
        )
        for part, waveform in waveforms.items():
            save_audio(folder / f"{request.name}-{part}.wav", waveform, rate)
        title = f"{request.name} · step {trainer.global_step}\n“{request.prompt}”"
        if request.negative_prompt:
            title += f"\nnot “{request.negative_prompt}”"
        picture = spectrogram_picture(waveforms, rate, title)
        save_png(folder / f"{request.name}.png", picture)
        for logger in trainer.loggers:
            for part, waveform in waveforms.items():
                if part == "edited" or request.name not in self._logged:  # source and text-only never change
                    # The tag makes a group for each edit.
                    log_audio(logger, f"{self.name}-{request.name}/{part}", waveform, rate, trainer.global_step)
            log_image(logger, f"{self.name}/{request.name}", picture, trainer.global_step)
        self._logged.add(request.name)
