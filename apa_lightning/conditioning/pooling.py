"""Pooling of the language-of-audio grid by the rate omega (paper, Sec. 3.2)."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from apa_lightning.errors import InputError

#: The rates of the paper, from which training draws by default.
POOLING_RATES = (1, 2, 4, 8)
POOLING_CHOICE = "choose one of 1, 2, 4, 8, 16, ...: a whole number that divides the audio encoder's grid"
_AXES = ("time steps", "frequency bands")


def is_pooling_rate(rate: object) -> bool:
    """Whether ``rate`` is a whole number of 1 or more. Which of them can be used depends on the grid."""
    return isinstance(rate, int) and not isinstance(rate, bool) and rate >= 1


def check_pooling_rate(rate: object, field: str) -> None:
    """Raise :class:`InputError` unless ``rate`` is a whole number of 1 or more."""
    if not is_pooling_rate(rate):
        raise InputError(f"{field}: {rate!r}; {POOLING_CHOICE}.")


def pooling_kernel(
    grid_size: Sequence[int],
    time_pooling: int,
    freq_pooling: int | None = None,
    fields: Sequence[str] = ("time_pooling", "freq_pooling"),
) -> tuple[int, int]:
    """The pooling rates along time and frequency, if a grid can be pooled by them.

    Args:
        grid_size: Tokens of the grid along time and frequency: (64, 8) for AudioMAE.
        time_pooling: omega along time.
        freq_pooling: omega along frequency; ``None`` means the same as ``time_pooling``, but at most the whole axis.
        fields: What messages call the two rates.

    Raises:
        InputError: If a rate does not divide its axis of the grid.
    """
    rates = (time_pooling, min(time_pooling, grid_size[1]) if freq_pooling is None else freq_pooling)
    for rate, size, field, axis in zip(rates, grid_size, fields, _AXES, strict=True):
        check_pooling_rate(rate, field)
        if size % rate:
            choice = ", ".join(str(one) for one in range(1, size + 1) if size % one == 0)
            raise InputError(
                f"{field}: {rate}; choose one of {choice}: the audio encoder's grid has {size} {axis}, "
                "and the rate must divide them."
            )
    return rates


def pool_tokens(grid: Tensor, time_pooling: int = 1, freq_pooling: int | None = None) -> Tensor:
    """Mean of average and max pooling with kernel = stride = (omega_time, omega_freq).

    Args:
        grid: Unpooled LOA tokens (B, T, F, D), (B, 64, 8, D) for AudioMAE.
        time_pooling: omega along time.
        freq_pooling: omega along frequency; see :func:`pooling_kernel`.

    Returns:
        loa (B, N, D), flattened time-major: N = 512, 128, 32, 8, 4, 2, 1 for omega = 1, 2, 4, 8, 16, 32, 64 on a 64 x 8 grid.

    Raises:
        InputError: If a rate does not divide its axis of the grid.
    """
    kernel = pooling_kernel(grid.shape[1:3], time_pooling, freq_pooling)
    planes = grid.permute(0, 3, 1, 2)
    pooled = (F.avg_pool2d(planes, kernel) + F.max_pool2d(planes, kernel)) / 2
    return pooled.flatten(2).transpose(1, 2)
