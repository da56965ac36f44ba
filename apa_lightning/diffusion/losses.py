"""Losses of denoising, as pure functions (AP-Adapter, arXiv 2407.16564)."""

from torch import Tensor
from torch.nn import functional as F


def mean_squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """Eq. 10: mean squared error between prediction and target, both (B, ...) -> one value per item (B,)."""
    error = F.mse_loss(prediction.float(), target.float(), reduction="none")
    return error.mean(dim=tuple(range(1, error.ndim)))


def inverse_snr(alphas_cumprod: Tensor, most: float) -> Tensor:
    """1 / SNR of each timestep, at least 1 and at most ``most``: weights for the epsilon loss.

    Where noise hides nearly everything, epsilon is nearly the input and its error is tiny, but what is played is decided
    there: 1 / SNR weights the error of the music instead (Salimans & Ho, arXiv 2202.00512, Sec. 4). ``most`` = 1: no weights.

    Args:
        alphas_cumprod: Of the schedule (T,).
        most: Upper bound of a weight.
    """
    return ((1 - alphas_cumprod) / alphas_cumprod).clamp(1, most)
