"""The time that cached encodings would save in a run without them."""

import time
from statistics import median
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from apa_lightning.module import AudioPromptModule


class EncodingCost(L.Callback):
    """Says once, in one line, how much of a training step the frozen encoders take, and what a cache of encodings would save.

    After a few steps the windows of one batch are encoded again, by the clock. Prompts are not: the backbone keeps repeated
    ones in memory. Batches that hold encodings, and models of other kinds, are left alone.

    Args:
        steps: Batches of training before the measurement. The time of a step is the median over the second half of them.
    """

    def __init__(self, steps: int = 8):
        self.steps = steps
        self._seconds: list[float] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._seconds = []

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        self._clock = time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if len(self._seconds) == self.steps or not isinstance(pl_module, AudioPromptModule) or "waveform" not in batch:
            return
        _wait_for(pl_module.device)
        self._seconds.append(time.perf_counter() - self._clock)
        if len(self._seconds) == self.steps and trainer.is_global_zero and "grid" not in batch:
            step, count = median(self._seconds[self.steps // 2 :]), len(batch["prompt"])
            with trainer.precision_plugin.train_step_context():
                encoding, size = encoded_again(pl_module, batch)
            rank_zero_info(said(step, encoding, size / count, clips_of(trainer), clips_read(trainer, count)))


@torch.no_grad()
def encoded_again(module: AudioPromptModule, batch: dict[str, Any]) -> tuple[float, int]:
    """Seconds that the windows of a batch take to encode, and bytes of their encodings in half precision."""
    _wait_for(module.device)
    clock, encoder = time.perf_counter(), module.window_encoder()
    of = "prompt_" if "prompt_waveform" in batch else ""
    encoding = encoder.encode(batch["waveform"], batch.get("num_samples"))
    grid = encoder.grid(batch[f"{of}waveform"], batch.get(f"{of}num_samples"))
    _wait_for(module.device)
    return time.perf_counter() - clock, 2 * sum(values.numel() for values in (*encoding.values(), grid))


def clips_of(trainer: L.Trainer) -> int | None:
    """Number of training clips, where the data module knows it."""
    describe: Any = getattr(trainer.datamodule, "describe", dict)  # type: ignore[attr-defined]
    return describe().get("train", {}).get("clips")


def clips_read(trainer: L.Trainer, batch_size: int) -> int | None:
    """Clips that the whole run reads; None without an end."""
    if trainer.max_steps < 0:
        return None
    return trainer.max_steps * trainer.accumulate_grad_batches * batch_size * trainer.world_size


def said(step: float, encoding: float, window_bytes: float, clips: int | None, read: int | None) -> str:
    """The line.

    Args:
        step: Seconds of a training step.
        encoding: Seconds of it in the encoders.
        window_bytes: Bytes of the encodings of one window.
        clips: Training clips; None: unknown.
        read: Clips that the whole run reads; None: unknown.
    """
    left = max(step - encoding, 0.05 * step)
    line = (
        f"encoders: {encoding:.2g} of the {step:.2g} s of a step (measured; prompts not counted). Cached encodings "
        f"(--config configs/data/encoded.yaml) would make steps about {step / left:.1f}x as fast"
    )
    if clips is None:
        return f"{line}, for {window_bytes / 1e6:.2g} MB of disk per window."
    line += f", for about {clips * window_bytes / 1e9:.2g} GB of disk with one window per clip."
    if read is not None:
        pays = "" if read > clips else ", too seldom for that to pay"
        line += (
            f" Every window is encoded once before training; this run reads each clip {read / clips:.2g} times{pays}."
        )
    return line


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
