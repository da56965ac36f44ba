"""Progress of a run by optimizer steps: a bar on a terminal, else a line every half minute."""

import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from apa_lightning.utils.progress import progress


class StepProgress(ProgressBar):
    """Shows training by optimizer steps, and validation, test and prediction by batches.

    Lightning's own bars count epochs, of which a run that is bounded by ``max_steps`` has no number: "Epoch 4/-2".
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bars: dict[str, tqdm] = {}  # those that are open, the outer one first

    @property
    def is_enabled(self) -> bool:
        """Whether bars are shown."""
        return self._enabled

    def enable(self) -> None:
        """Show bars that are opened from now on."""
        self._enabled = True

    def disable(self) -> None:
        """Show no bars from now on; another callback has its own."""
        self._enabled = False

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a line above the bars."""
        tqdm.write(kwargs.pop("sep", " ").join(map(str, args)), **kwargs)

    def _open(self, name: str, total: float | list[int | float], unit: str, done: int = 0) -> None:
        total = sum(total) if isinstance(total, list) else total
        bar = progress(int(total) if math.isfinite(total) else None, name, unit, done, self._enabled)
        bar.leave = not self._bars  # an inner bar makes room for the next one
        self._bars[name] = bar

    def _close(self, *names: str) -> None:
        for name in names:
            if (bar := self._bars.pop(name, None)) is not None:
                bar.close()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open("training", trainer.estimated_stepping_batches, "step", trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        bar = self._bars["training"]
        scores = {name: value for name, value in self.get_metrics(trainer, pl_module).items() if name != "v_num"}
        bar.set_postfix(scores, refresh=False)
        bar.update(trainer.global_step - bar.n)

    def on_train_end(self, *_: Any) -> None:
        self._close("training")

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open("sanity check", trainer.num_sanity_val_batches, "batch")

    def on_sanity_check_end(self, *_: Any) -> None:
        self._close("sanity check")

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._open("validation", trainer.num_val_batches, "batch")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open("test", trainer.num_test_batches, "batch")

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._open("prediction", trainer.num_predict_batches, "batch")

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        next(reversed(self._bars.values())).update()

    on_test_batch_end = on_predict_batch_end = on_validation_batch_end

    def on_validation_end(self, *_: Any) -> None:
        self._close("validation")

    def on_test_end(self, *_: Any) -> None:
        self._close("test")

    def on_predict_end(self, *_: Any) -> None:
        self._close("prediction")

    def on_exception(self, *_: Any) -> None:
        self._close(*list(reversed(self._bars)))
