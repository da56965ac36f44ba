"""Monitors of speed and learning rate; both work without a logger."""

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor

from apa_lightning.module import AudioPromptModule
from apa_lightning.utils.lightning_compat import is_logged


class LearningRate(LearningRateMonitor):
    """Lightning's learning-rate monitor, which refuses to run without a logger; this one then does nothing."""

    def on_train_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.loggers:
            super().on_train_start(trainer, *args, **kwargs)


class Throughput(L.Callback):
    """Logs how fast training goes since the last logged step, without validation and checkpoints.

    ``throughput/steps_per_second`` (optimizer steps), ``throughput/clips_per_second`` (of all processes),
    ``throughput/audio_hours_per_hour``, ``throughput/data_wait`` (share of the time spent waiting for batches) and, on
    a GPU, ``throughput/peak_memory_gib``. Lightning's own ThroughputMonitor knows neither audio nor waiting.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: AudioPromptModule) -> None:
        self._restart(trainer)
        self._pause()

    def _restart(self, trainer: L.Trainer) -> None:
        self._seconds = self._waited = 0.0
        self._clips, self._step = 0, trainer.global_step

    def _pause(self, *_: Any, **__: Any) -> None:
        """What passes until the next batch is not training's time."""
        self._mark: float | None = None

    on_train_epoch_start = on_validation_start = on_save_checkpoint = _pause

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: AudioPromptModule, batch: dict, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if self._mark is not None:
            self._waited += now - self._mark
            self._seconds += now - self._mark
        self._mark = now

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: AudioPromptModule, outputs: Any, batch: dict, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        self._seconds += now - (self._mark or now)
        self._mark = now
        self._clips += len(batch["prompt"]) * trainer.world_size
        steps = trainer.global_step - self._step
        if steps == 0 or not is_logged(trainer, trainer.global_step):
            return
        clips_per_second = self._clips / self._seconds
        rates = {
            "steps_per_second": steps / self._seconds,
            "clips_per_second": clips_per_second,
            "audio_hours_per_hour": clips_per_second * pl_module.backbone.window_seconds,
            "data_wait": self._waited / self._seconds,
        }
        if pl_module.device.type == "cuda":
            rates["peak_memory_gib"] = torch.cuda.max_memory_allocated(pl_module.device) / 2**30
        pl_module.log_dict({f"throughput/{name}": value for name, value in rates.items()}, batch_size=1)
        self._restart(trainer)
