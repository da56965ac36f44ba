"""Exponential moving average of the adapter alone; Lightning's own weight averaging would average the backbone too."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from apa_lightning.errors import InputError
from apa_lightning.module import AudioPromptModule


class AdapterEMA(L.Callback):
    """Keeps ``average = d * average + (1 - d) * weights``, updated after every optimizer step.

    The average takes the weights' place in validation, test and prediction, and in the exported adapter file. Training
    and the checkpoint's adapter keep the trained weights; the average has its own place in the checkpoint (as large as
    the adapter) and resumes exactly.

    Args:
        decay: d in the long run.
        warmup: let d rise as ``min(decay, (1 + n) / (10 + n))`` with the number n of updates, so that the average
            follows quickly at first and short runs are not dominated by the initial weights.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True):
        if not 0 <= decay < 1:
            raise InputError(f"decay: {decay}; give 0 to below 1, for example 0.999.")
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self._average: dict[str, Tensor] = {}
        self._trained: dict[str, Tensor] = {}  # the training's weights while the average is in their place
        self._last_step = 0

    def decay_at(self, update: int) -> float:
        """Decay d of the ``update``-th update, counted from 1."""
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay

    # --- training ---------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: L.Trainer, pl_module: AudioPromptModule) -> None:
        self._last_step = trainer.global_step
        self._fit_average(pl_module)
        if not self._average:
            self._average = _copy(pl_module)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: AudioPromptModule, *_: Any) -> None:
        if trainer.global_step == self._last_step:  # gradients are still being accumulated
            return
        self._last_step = trainer.global_step
        self.updates += 1
        weights = [parameter.detach() for parameter in pl_module.adapter.parameters()]
        get_ema_multi_avg_fn(self.decay_at(self.updates))(list(self._average.values()), weights, None)

    # --- taking the weights' place ----------------------------------------------------------------------------------

    @contextmanager
    def applied(self, module: AudioPromptModule) -> Iterator[None]:
        """The module's adapter holds the average inside the block, and what it held before afterwards."""
        was_applied = bool(self._trained)
        self._swap_in(module)
        try:
            yield
        finally:
            if not was_applied:
                self._swap_out(module)

    def _swap_in(self, module: AudioPromptModule) -> None:
        self._fit_average(module)
        if self._average and not self._trained:
            self._trained = _copy(module)
            _fill(module, self._average)

    def _swap_out(self, module: AudioPromptModule) -> None:
        if self._trained:
            _fill(module, self._trained)
            self._trained = {}

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_in(cast(AudioPromptModule, pl_module))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._swap_out(cast(AudioPromptModule, pl_module))

    on_test_start = on_predict_start = on_validation_start
    on_test_end = on_predict_end = on_validation_end

    def on_exception(self, trainer: L.Trainer, pl_module: AudioPromptModule, exception: BaseException) -> None:
        self._swap_out(pl_module)

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: AudioPromptModule, checkpoint: dict[str, Any]) -> None:
        """A checkpoint in the middle of a validation (a cluster's signal) holds the trained weights all the same."""
        self._swap_out(pl_module)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "average": dict(self._average)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates, self._average = state_dict["updates"], dict(state_dict["average"])

    def _fit_average(self, module: AudioPromptModule) -> None:
        """Bring a loaded average to the weights' names, order and devices; refuse one of another adapter."""
        weights = dict(module.adapter.named_parameters())
        if self._average and self._average.keys() != weights.keys():
            raise InputError("AdapterEMA: the average in the checkpoint belongs to another adapter.")
        if self._average:
            with _trainable_tensors():
                self._average = {name: self._average[name].to(weight) for name, weight in weights.items()}


@contextmanager
def _trainable_tensors() -> Iterator[None]:
    """Validation hooks run in inference mode, whose tensors could not be updated in training afterwards."""
    with torch.inference_mode(False), torch.no_grad():
        yield


def _copy(module: AudioPromptModule) -> dict[str, Tensor]:
    with _trainable_tensors():
        return {name: weight.detach().clone() for name, weight in module.adapter.named_parameters()}


def _fill(module: AudioPromptModule, values: dict[str, Tensor]) -> None:
    with _trainable_tensors():
        for name, weight in module.adapter.named_parameters():
            weight.copy_(values[name])
