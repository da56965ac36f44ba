"""Steps whose loss or gradients are not finite."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor

from apa_lightning.errors import InputError
from callbacks.run_folder import run_folder

log = logging.getLogger(__name__)


class SkipNonFiniteSteps(L.Callback):
    """A step whose loss or gradients are NaN or infinite changes no weight; it is counted, and too many in a row end the run.

    Logs ``train/skipped_steps``, the number since training began, which resumes with the run. The batches of skipped
    steps are named in ``nonfinite_steps.jsonl`` in the run's folder (``nonfinite_steps-rank1.jsonl`` and so on under DDP):
    step, losses, and the keys of the clips. All processes skip together. Costs one synchronisation per step.

    Under fp16 the first steps may be skipped while the loss scale finds its size.

    Args:
        max_in_a_row: so many skipped steps in a row end the run.

    Raises:
        InputError: they have come.
    """

    def __init__(self, max_in_a_row: int = 20):
        if max_in_a_row < 1:
            raise InputError(f"max_in_a_row: {max_in_a_row}; give 1 or more.")
        self.max_in_a_row = max_in_a_row
        self.skipped = self.in_a_row = 0
        self._folder: Path | None = None
        self._losses: list[Tensor] = []
        self._keys: list[str] = []

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._folder = run_folder(trainer)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if isinstance(batch, dict):
            self._keys += batch.get("key", [])

    def on_before_backward(self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor) -> None:
        self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        finite = torch.stack([*self._losses, torch.nn.utils.get_total_norm(gradients).to(pl_module.device)]).isfinite()
        losses, keys, self._losses, self._keys = self._losses, self._keys, [], []
        if trainer.strategy.reduce_boolean_decision(bool(finite.all()), all=True):
            self.in_a_row = 0
        else:
            optimizer.zero_grad()  # an optimizer passes over weights without gradients
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
            report = self._write(trainer, [float(loss) for loss in losses], keys)
            if trainer.is_global_zero:
                log.warning(
                    "step %d: the loss or a gradient is not finite. The step is skipped (%d so far); its clips are named in '%s'.",
                    trainer.global_step, self.skipped, report,
                )  # fmt: skip
            if self.in_a_row >= self.max_in_a_row:
                raise InputError(
                    f"training: the loss or gradients were not finite in {self.in_a_row} steps in a row, up to step "
                    f"{trainer.global_step}. The clips of those steps are named in '{report}'. Look at them, lower the "
                    "learning rate, or train in another precision; --ckpt_path last continues with the last checkpoint, "
                    "whose weights are finite."
                )
        pl_module.log("train/skipped_steps", float(self.skipped))

    def _write(self, trainer: L.Trainer, losses: list[float], keys: list[str]) -> Path:
        rank = f"-rank{trainer.global_rank}" if trainer.global_rank else ""
        report = Path(self._folder or trainer.default_root_dir) / f"nonfinite_steps{rank}.jsonl"
        report.parent.mkdir(parents=True, exist_ok=True)
        line = {"step": trainer.global_step, "losses": [str(loss) for loss in losses], "keys": keys}
        with open(report, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return report

    def state_dict(self) -> dict[str, int]:
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]
