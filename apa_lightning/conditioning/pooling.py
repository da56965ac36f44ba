"""Pooling of the language-of-audio grid by the rate omega (paper, Sec. 3.2)."""

from torch import Tensor
from torch.nn import functional as F

from apa_lightning.errors import InputError

POOLING_RATES = (1, 2, 4, 8)


def check_pooling_rate(rate: int, field: str = "time_pooling") -> None:
    """Raise :class:`InputError` unless ``rate`` is one of {1, 2, 4, 8}."""
    if isinstance(rate, bool) or rate not in POOLING_RATES:
        raise InputError(
            f"{field}: {rate!r} is not a pooling rate; choose one of {', '.join(map(str, POOLING_RATES))}."
        )


def pool_tokens(grid: Tensor, time_pooling: int = 1, freq_pooling: int | None = None) -> Tensor:
    """Mean of average and max pooling with kernel = stride = (omega_time, omega_freq).

    Args:
        grid: unpooled LOA tokens (B, T, F, D), (B, 64, 8, D) for AudioMAE.
        time_pooling: omega along time.
        freq_pooling: omega along frequency; ``None`` means the same as ``time_pooling`` (the paper's single omega).

    Returns:
        loa (B, N, D), flattened time-major: N = 512, 128, 32, 8 for omega = 1, 2, 4, 8 on a 64 x 8 grid.

    Raises:
        InputError: a rate outside {1, 2, 4, 8}, or larger than the grid.
    """
    freq_pooling = time_pooling if freq_pooling is None else freq_pooling
    check_pooling_rate(time_pooling, "time_pooling")
    check_pooling_rate(freq_pooling, "freq_pooling")
    if time_pooling > grid.shape[1] or freq_pooling > grid.shape[2]:
        raise InputError(
            f"time_pooling={time_pooling}, freq_pooling={freq_pooling}: larger than the audio encoder's grid of "
            f"{grid.shape[1]} x {grid.shape[2]}."
        )
    rates = (time_pooling, freq_pooling)
    planes = grid.permute(0, 3, 1, 2)
    pooled = (F.avg_pool2d(planes, rates) + F.max_pool2d(planes, rates)) / 2
    return pooled.flatten(2).transpose(1, 2)
