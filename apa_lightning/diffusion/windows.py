"""Recordings longer than a model's window: overlapping windows that are blended at every step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apa_lightning.diffusion.objectives import Model
from apa_lightning.utils.windows import blend_windows, window_starts, window_weights


@dataclass(frozen=True)
class Windows:
    """Windows of ``size`` latent frames that cover ``length``, evenly spread.

    Attributes:
        length: Number of frames.
        size: Frames of a window.
        overlap: Share of a window, below 1, that neighbours have in common at least.
        kept: Frames (length,) that are kept whatever is predicted: there is no window of nothing else. None: no frame is.
    """

    length: int
    size: int
    overlap: float = 0.25
    kept: Tensor | None = None

    @property
    def starts(self) -> list[int]:
        """First frame of each window."""
        return [start for start, needed in zip(*self._all(), strict=True) if needed]

    def _all(self) -> tuple[list[int], list[bool]]:
        """First frame of each window, and whether it is needed."""
        starts = window_starts(self.length, self.size, int(self.size * self.overlap))
        kept = torch.zeros(self.length) if self.kept is None else self.kept
        return starts, [not bool(kept[start : start + self.size].all()) for start in starts]

    def wrap(self, models: Sequence[Model], together: int = 1) -> Model:
        """A model of the whole length, whose windows are predicted ``together`` and cross-faded.

        Args:
            models: One for each run of windows; it predicts (n * B) items, window by window. The last run may be shorter.
            together: Windows of a run.
        """
        every, needed = self._all()
        starts, weights = self.starts, window_weights(self.length, self.size, every)[torch.tensor(needed)]

        def model(latents: Tensor, time: Tensor) -> Tensor:
            windows = torch.stack([latents[:, :, start : start + self.size] for start in starts])
            runs = zip(models, windows.split(together), strict=True)
            parts = torch.cat([one(run.flatten(0, 1), time).unflatten(0, run.shape[:2]) for one, run in runs])
            return blend_windows(parts, starts, weights, self.length)

        return model
