"""The base of all trained parts of the pocket backbone: settings, schedule, random draws, and writing the folder."""

import copy
import math
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import lightning as L
import torch
from torch import nn

from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import no_progress_bars
from apa_lightning.utils.rng import generator_for, seeded

FOLDER = Path("runs/pocket/model")


class PocketPart(L.LightningModule):
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
        check(0 < learning_rate < 1, "learning_rate", learning_rate, "it must be above 0 and below 1.")
        check(warmup_steps >= 0, "warmup_steps", warmup_steps, "it must not be negative.")
        self.folder, self.seed = Path(folder), seed
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps
        self.weight_decay, self.betas = weight_decay, (betas[0], betas[1])

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
        groups = decayed(self.named_parameters(), self.weight_decay)
        # In mixed precision Lightning refuses to clip the gradients of a fused optimizer.
        fused = "mixed" not in str(self.trainer.precision)
        optimizer = torch.optim.AdamW(groups, self.learning_rate, self.betas, fused=fused)

        def rate(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
            return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def write(self, folder: Path) -> None:
        """Write every subfolder of :attr:`writes` below ``folder``, weights in half precision."""
        raise NotImplementedError

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
        if not self.trainer.sanity_checking and self.trainer.state.fn == "fit":
            self.export()

    def on_train_end(self) -> None:
        self.export()


def check(holds: bool, field: str, value: object, rule: str) -> None:
    """Raise :class:`InputError` with the setting, its value and the rule, unless the rule ``holds``."""
    if not holds:
        raise InputError(f"model.{field}: {value}; {rule}")


def check_share(field: str, value: float) -> None:
    """Raise :class:`InputError` unless a setting is between 0 and 1."""
    check(0 <= value <= 1, field, value, "it must be between 0 and 1.")


def check_not_negative(field: str, value: float) -> None:
    """Raise :class:`InputError` if a setting is negative."""
    check(value >= 0, field, value, "it must not be negative.")


def decayed(parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: matrices and kernels with weight decay; biases, norms and other vectors without."""
    trained = [parameter for _, parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def save_half(part: Any, folder: Path, **options: Any) -> None:
    """Save a half-precision copy of a diffusers or transformers model by ``save_pretrained(folder, **options)``.

    Its configuration asks for single precision, which transformers would otherwise not give without being told.
    """
    with no_progress_bars():
        copy.deepcopy(part).cpu().half().save_pretrained(folder, **options)
    path = folder / "config.json"
    path.write_text(path.read_text().replace('\n  "dtype": "float16"', '\n  "dtype": "float32"'))
