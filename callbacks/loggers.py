"""Audio, pictures and charts for every logger that takes them; the others are skipped.

Numbers need no adapter: ``LightningModule.log`` sends them to every logger.
"""

from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

from apa_lightning.audio import to_mono


def log_audio(logger: Logger, tag: str, waveform: Tensor, sample_rate: int, step: int) -> None:
    """Log a waveform (S,) or (2, S), which TensorBoard plays mono, to TensorBoard or W&B."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_audio(tag, to_mono(waveform)[None], step, sample_rate)
    elif isinstance(logger, WandbLogger):
        logger.log_audio(tag, [waveform.cpu().numpy().T], step, sample_rate=[sample_rate])


def log_image(logger: Logger, tag: str, picture: np.ndarray, step: int) -> None:
    """Log an RGB picture (H, W, 3) of uint8 to TensorBoard or W&B."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(tag, picture, step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(tag, [picture], step)


def log_charts(logger: Logger, layout: dict[str, Any]) -> None:
    """Arrange logged numbers in charts: TensorBoard's custom scalars. In W&B a user arranges them in the browser.

    Args:
        logger: The logger.
        layout: Charts by category and name, as ``SummaryWriter.add_custom_scalars`` takes them.
    """
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_custom_scalars(layout)
