"""The base of all trained parts of the pocket backbone: settings, schedule, random draws, and writing the folder."""

import math
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self, TypeVar

import lightning as L
import torch
from torch import Tensor

from apa_lightning.errors import InputError
from apa_lightning.utils.rng import generator_for, seeded

FOLDER = Path("runs/pocket/model")
Setting = TypeVar("Setting")


class PocketPart(L.LightningModule, ABC):
    """One part of the pocket backbone in training.

    A subclass builds the part in ``__init__``, returns a loss from ``training_step``, logs ``val/loss`` in
    ``validation_step`` and writes the part in :meth:`write`. The part is written after every validation and at the end.

    Args:
        folder: Folder of the pocket backbone; each part has a subfolder.
        learning_rate: Highest rate of AdamW; it is reached after the warm-up and falls along a cosine to 0 at the end.
        warmup_steps: Optimizer steps of linear warm-up.
        weight_decay: Weight decay of matrices and kernels; biases and norms have none.
        betas: Both decay rates of AdamW.
        seed: Seed of the initial weights and of every draw.

    Raises:
        InputError: If a setting is out of range, or ``folder`` lacks a part that this one is trained with.
    """

    writes: tuple[str, ...] = ()
    """Subfolders that :meth:`write` fills."""
    evaluated: tuple[str, ...] = ()
    """Submodules that stay in evaluation mode."""

    def __init__(
        self,
        folder: Path = FOLDER,
        learning_rate: float = 2e-3,
        warmup_steps: int = 100,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        seed: int = 0,
    ):
        super().__init__()
        rule = "it must be above 0 and below 1."
        self.learning_rate = check("learning_rate", learning_rate, 0 < learning_rate < 1, rule)
        self.warmup_steps = not_negative("warmup_steps", warmup_steps)
        self.folder, self.seed, self.weight_decay, self.betas = Path(folder), seed, weight_decay, betas

    def draws(self, purpose: str) -> torch.Generator:
        """The generator of one training step and process."""
        return generator_for(self.seed, type(self).__name__, purpose, self.global_step, self.global_rank)

    def dropout_draws(self) -> AbstractContextManager[None]:
        """A block in which dropout too depends on the step alone."""
        return seeded(self.draws("dropout").initial_seed())

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in self.evaluated:
            getattr(self, name).eval()
        return self

    def configure_optimizers(self) -> Any:
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps) or steps < 1:
            raise InputError(
                "trainer.max_steps: the learning rate falls to 0 at the last step; give a number of steps."
            )
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [  # matrices and kernels with weight decay; biases, norms and other vectors without
            {"params": [p for p in trained if p.ndim >= 2], "weight_decay": self.weight_decay},
            {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
        ]
        # In mixed precision Lightning refuses to clip the gradients of a fused optimizer.
        fused = "mixed" not in str(self.trainer.precision)
        optimizer = torch.optim.AdamW(groups, self.learning_rate, self.betas, fused=fused)

        def rate(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
            return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def log_scores(self, split: str, scores: Mapping[str, Tensor], count: int, bar: str = "loss") -> None:
        """Log the means of ``count`` items as ``split/name``; the one called ``bar`` goes to the progress bar too."""
        for name, value in scores.items():
            prog_bar = name in ("loss", bar)
            self.log(f"{split}/{name}", value, prog_bar=prog_bar, batch_size=count, sync_dist=split == "val")

    @abstractmethod
    def write(self, folder: Path) -> None:
        """Write every subfolder of :attr:`writes` below ``folder``, weights in half precision."""

    @property
    def writing(self) -> bool:
        """Whether this process writes files."""
        return self.trainer.is_global_zero and not self.trainer.fast_dev_run  # type: ignore[attr-defined]

    def export(self) -> None:
        """Replace the part's subfolders in :attr:`folder` by the present weights."""
        if not self.writing:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".writing-") as temporary:
            self.write(Path(temporary))
            for name in self.writes:
                for path in (Path(temporary) / name).iterdir():
                    path.chmod(0o644)  # safetensors makes files that only their owner can read
                shutil.rmtree(self.folder / name, ignore_errors=True)
                (Path(temporary) / name).rename(self.folder / name)

    def on_validation_end(self) -> None:
        if self.trainer.state.fn == "fit" and self.global_step > 0:
            self.export()

    def on_train_end(self) -> None:
        self.export()


def check(field: str, value: Setting, holds: bool, rule: str) -> Setting:
    """The value of a setting, if it is good.

    Raises:
        InputError: If it does not hold; the message has the setting, its value and the rule.
    """
    if not holds:
        raise InputError(f"model.{field}: {value}; {rule}")
    return value


def share(field: str, value: float) -> float:
    """:func:`check` that a setting is between 0 and 1."""
    return check(field, value, 0 <= value <= 1, "it must be between 0 and 1.")


def not_negative(field: str, value: Any) -> Any:
    """:func:`check` that a number is not negative."""
    return check(field, value, value >= 0, "it must not be negative.")
