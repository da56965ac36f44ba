"""What training the parts of the pocket backbone has in common: schedule, draws, and the folder they are written to."""

import copy
import math
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn

from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import no_progress_bars
from apa_lightning.utils.rng import generator_for


class PocketPart(L.LightningModule):
    """One part of the pocket backbone in training.

    Subclasses build the part in ``__init__``, give a loss in ``training_step``, log ``val/loss`` in ``validation_step`` and
    write the part in :meth:`write`. It is written after every validation and at the end of training.

    Args:
        folder: the pocket backbone's folder; the part goes into its subfolder there.
        learning_rate: highest rate of AdamW, reached after ``warmup_steps``, falling along a cosine to 0 at the end.
        warmup_steps: optimizer steps of linear warm-up.
        weight_decay: of matrices and kernels; biases and norms have none.
        betas: of AdamW.
        seed: of the initial weights and of every draw.
    """

    #: Subfolders that :meth:`write` fills.
    writes: tuple[str, ...] = ()

    def __init__(
        self,
        folder: Path = Path("runs/pocket/model"),
        learning_rate: float = 1e-3,
        warmup_steps: int = 100,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.99),
        seed: int = 0,
    ):
        super().__init__()
        if not 0 < learning_rate < 1:
            raise InputError(f"model.learning_rate: {learning_rate}; it must be above 0 and below 1.")
        if warmup_steps < 0:
            raise InputError(f"model.warmup_steps: {warmup_steps}; it must not be negative.")
        self.folder, self.seed = Path(folder), seed
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps
        self.weight_decay, self.betas = weight_decay, (betas[0], betas[1])

    def draws(self, purpose: str) -> torch.Generator:
        """The generator of one training step and process."""
        return generator_for(self.seed, type(self).__name__, purpose, self.global_step, self.global_rank)

    def configure_optimizers(self) -> Any:
        steps = self.trainer.estimated_stepping_batches
        if not math.isfinite(steps) or steps < 1:
            raise InputError(
                "trainer.max_steps: the learning rate falls to 0 at the last step; give a number of steps."
            )
        optimizer = torch.optim.AdamW(
            decayed(self.named_parameters(), self.weight_decay), self.learning_rate, self.betas, fused=True
        )

        def rate(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
            return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps)))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def write(self, folder: Path) -> None:
        """Write every subfolder of :attr:`writes` below ``folder``, weights in half precision."""
        raise NotImplementedError

    def export(self) -> None:
        """Replace the part's subfolders in :attr:`folder` by the present weights."""
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".writing-") as temporary:
            self.write(Path(temporary))
            for name in self.writes:
                for path in (Path(temporary) / name).iterdir():
                    path.chmod(0o644)  # safetensors makes files that their owner alone can read
                shutil.rmtree(self.folder / name, ignore_errors=True)
                (Path(temporary) / name).rename(self.folder / name)

    def on_validation_end(self) -> None:
        if not self.trainer.sanity_checking and self.trainer.state.fn == "fit":
            self.export()

    def on_train_end(self) -> None:
        self.export()


def decayed(parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: matrices and kernels with weight decay, biases, norms and other vectors without."""
    trained = [parameter for _, parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]


def save_half(part: Any, folder: Path, **options: Any) -> None:
    """``part.save_pretrained(folder, **options)`` with a half-precision copy of a diffusers or transformers model's weights."""
    with no_progress_bars():
        copy.deepcopy(part).cpu().half().save_pretrained(folder, **options)
