"""The adapter as a file of its own, ready for ``AudioEditor`` and ``predict``, while and after a run."""

from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from apa_lightning.errors import InputError
from apa_lightning.module import AudioPromptModule
from apa_lightning.utils.atomic_files import remove_leftovers
from apa_lightning.utils.lightning_compat import callbacks_of, is_fast_dev_run
from callbacks.adapter_ema import AdapterEMA
from callbacks.run_folder import run_folder


class AdapterExport(L.Callback):
    """Writes the adapter file at the end of training and, by choice, on the way there.

    With :class:`AdapterEMA` among the callbacks the file holds the average. Its metadata say which (``weights`` is
    ``ema`` or ``trained``), ``step`` and ``epoch``, in addition to what the module notes (``backbone``, ...). The file is
    replaced atomically, and never by weights that are not finite. A fast development run writes none.

    Args:
        when: ``fit_end`` only at the end of training; ``validation`` also after every validation; ``checkpoint`` also
            with every checkpoint.
        filename: a name ending in ``.safetensors``; ``{step}`` in it keeps one file per step.
        folder: where to; ``null`` means the run's folder.
    """

    def __init__(
        self,
        when: Literal["fit_end", "validation", "checkpoint"] = "validation",
        filename: str = "adapter.safetensors",
        folder: str | None = None,
    ):
        if when not in ("fit_end", "validation", "checkpoint"):
            raise InputError(f"when: {when!r} is unknown; choose 'fit_end', 'validation' or 'checkpoint'.")
        if not filename.endswith(".safetensors") or Path(filename).name != filename:
            raise InputError(f"filename: {filename!r}; give a name without folders that ends in .safetensors.")
        self.when, self.filename, self.folder = when, filename, folder
        self._run_folder: Path | None = None

    def setup(self, trainer: L.Trainer, pl_module: AudioPromptModule, stage: str) -> None:
        self._run_folder = run_folder(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: AudioPromptModule) -> None:
        if self.when == "validation" and trainer.state.fn == "fit" and trainer.global_step > 0:
            self.export(trainer, pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: AudioPromptModule, checkpoint: dict[str, Any]) -> None:
        if self.when == "checkpoint":
            self.export(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: AudioPromptModule) -> None:
        if path := self.export(trainer, pl_module):
            rank_zero_info(f"The adapter is in {path}")

    def export(self, trainer: L.Trainer, module: AudioPromptModule) -> Path | None:
        """Write the file from the first process; returns its path, or None where nothing was written."""
        if is_fast_dev_run(trainer) or not trainer.is_global_zero:
            return None
        average = next((callback for callback in callbacks_of(trainer) if isinstance(callback, AdapterEMA)), None)
        if average is None:
            return self._save(trainer, module, weights="trained")
        with average.applied(module):
            return self._save(trainer, module, weights="ema", ema_decay=average.decay, ema_updates=average.updates)

    def _save(self, trainer: L.Trainer, module: AudioPromptModule, **metadata: object) -> Path | None:
        path = Path(self.folder or self._run_folder or ".") / self.filename.replace(
            "{step}", f"{trainer.global_step:06d}"
        )
        if not all(torch.isfinite(weight).all() for weight in module.adapter.parameters()):
            rank_zero_warn(
                f"The adapter holds NaN or infinite weights at step {trainer.global_step}; {path} is left as it was."
            )
            return None
        remove_leftovers(path)
        module.adapter.save(path, step=trainer.global_step, epoch=trainer.current_epoch, **metadata)
        return path
