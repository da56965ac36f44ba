"""The mathematics of training and guided sampling, as pure functions (AP-Adapter, arXiv 2407.16564)."""

from torch import Tensor
from torch.nn import functional as F


def epsilon_loss(prediction: Tensor, noise: Tensor) -> Tensor:
    """Eq. 10: mean squared error between predicted and true noise, both (B, C, T, F) -> one value per item (B,)."""
    return F.mse_loss(prediction.float(), noise.float(), reduction="none").mean(dim=(1, 2, 3))


def loss_weights(alphas_cumprod: Tensor, most: float) -> Tensor:
    """1 / SNR of each timestep, no less than 1 and no more than ``most``, for :func:`epsilon_loss`.

    Where noise hides nearly everything, epsilon is nearly the input and its error tiny, but what is played is decided there:
    1 / SNR weighs the error of the music instead (Salimans & Ho, arXiv 2202.00512, Sec. 4). ``most`` = 1: no weights.

    Args:
        alphas_cumprod: of the schedule (T,).
    """
    return ((1 - alphas_cumprod) / alphas_cumprod).clamp(1, most)


def guide(unconditional: Tensor, conditional: Tensor, guidance_scale: float | Tensor) -> Tensor:
    """Eq. 12, classifier-free guidance: eps(c_y-) + lambda * (eps(c_x, c_y) - eps(c_y-))."""
    return unconditional + guidance_scale * (conditional - unconditional)
