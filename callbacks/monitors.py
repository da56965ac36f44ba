"""How fast a run is and at which learning rate; both work without a logger."""

import time
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LearningRateMonitor

from apa_lightning.module import AudioPromptModule


class LearningRate(LearningRateMonitor):
    """Lightning's learning-rate monitor, which refuses to run without a logger; this one then does nothing."""

    def on_train_start(self, trainer: L.Trainer, *args: Any, **kwargs: Any) -> None:
        if trainer.loggers:
            super().on_train_start(trainer, *args, **kwargs)


class Throughput(L.Callback):
    """Logs how fast training goes, over the steps since the last logged one; validation and checkpoints are not counted.

    ``throughput/steps_per_second`` (optimizer steps), ``throughput/clips_per_second`` (all processes),
    ``throughput/audio_hours_per_hour``, ``throughput/data_wait`` (share of the time spent waiting for a batch) and, on a
    GPU, ``throughput/peak_memory_gib``. Lightning's own ThroughputMonitor stops with an error without a logger, counts
    neither audio nor waiting.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: AudioPromptModule) -> None:
        self._restart(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: AudioPromptModule) -> None:
        self._mark = time.perf_counter()

    def _restart(self, trainer: L.Trainer) -> None:
        self._mark = time.perf_counter()
        self._waited = self._worked = self._seconds = 0.0
        self._clips, self._step = 0, trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: AudioPromptModule, batch: dict, batch_idx: int) -> None:
        now = time.perf_counter()
        self._waited, self._mark = self._waited + now - self._mark, now
