"""Conditions of training: omega, condition dropout and the dropped audio prompt (paper, Sec. 3.2 and 3.4).

Every choice where the paper and the published code disagree has a name here. The defaults are the paper's, except for the
condition dropout: the published code's single draw contains the case without text and audio, which guidance needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from apa_lightning.conditioning.pooling import POOLING_RATES, check_pooling_rate, pool_tokens
from apa_lightning.errors import InputError

#: ``zeros``: c_x is the zero matrix (paper). ``zero_fbank``: AudioMAE's tokens of an all-zero filter bank (published code).
DroppedAudio = Literal["zeros", "zero_fbank"]


@dataclass(frozen=True)
class ConditionDropout:
    """Which conditions a training item loses, so that guidance (Eq. 12) has an unconditional branch.

    Attributes:
        scheme: ``exclusive`` makes one draw per item: text alone, audio alone, or both (published code); ``independent``
            draws text and audio separately (paper: 5 % each).
        text: Probability of losing the text (``exclusive``: the text alone).
        audio: Probability of losing the audio prompt (``exclusive``: the audio alone).
        both: Probability of losing both, for ``exclusive`` only.
    """

    scheme: Literal["exclusive", "independent"] = "exclusive"
    text: float = 0.05
    audio: float = 0.05
    both: float = 0.05

    def __post_init__(self) -> None:
        for name in ("text", "audio", "both"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"condition_dropout.{name}: {getattr(self, name)} is not a probability; give 0 to 1.")
        if self.scheme not in ("exclusive", "independent"):
            raise InputError(
                f"condition_dropout.scheme: {self.scheme!r} is unknown; choose 'exclusive' or 'independent'."
            )
        if self.scheme == "exclusive" and self.text + self.audio + self.both > 1:
            raise InputError("condition_dropout: text + audio + both exceed 1.")

    def draw(self, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Masks (B,) of the items that lose the text, and of those that lose the audio prompt."""
        u = torch.rand(batch_size, 2, generator=generator, dtype=torch.float32)
        if self.scheme == "independent":
            return u[:, 0] < self.text, u[:, 1] < self.audio
        draw = u[:, 0]
        both = draw < self.both
        text = (draw >= self.both) & (draw < self.both + self.text)
        audio = (draw >= self.both + self.text) & (draw < self.both + self.text + self.audio)
        return text | both, audio | both


@dataclass(frozen=True)
class PoolingRates:
    """The random omega of training: one rate per batch, uniform over ``rates``, along time and, up to the whole axis, frequency."""

    rates: Sequence[int] = field(default=POOLING_RATES)

    def __post_init__(self) -> None:
        if not self.rates:
            raise InputError("pooling_rates.rates: empty; give one or more, as 1, 2, 4, 8.")
        for rate in self.rates:
            check_pooling_rate(rate, "pooling_rates.rates")

    def draw(self, generator: torch.Generator) -> int:
        """One omega."""
        return self.rates[int(torch.randint(len(self.rates), (), generator=generator))]


def audio_tokens(grid: Tensor, dropped: Tensor, omega: int, silence: Tensor | None = None) -> Tensor:
    """Pooled audio-prompt tokens of a batch, with dropped items replaced.

    Args:
        grid: Unpooled tokens (B, T, F, D).
        dropped: Items without an audio prompt (B,), bool.
        omega: Pooling rate.
        silence: Grid (1, T, F, D) that stands in for a dropped item; ``None`` means zeros, which add nothing.

    Returns:
        loa (B, N, D).
    """
    tokens = pool_tokens(grid, omega)
    nothing = torch.zeros_like(tokens[:1]) if silence is None else pool_tokens(silence, omega).to(tokens)
    return torch.where(dropped.to(tokens.device)[:, None, None], nothing, tokens)
