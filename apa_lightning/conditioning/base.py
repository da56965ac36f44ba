"""The interface of audio encoders: waveform -> a grid of unpooled tokens."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn


class AudioConditioner(nn.Module, ABC):
    """Frozen encoder of the audio prompt.

    Attributes:
        embed_dim: Width D of a token; the backbone's adapted layers must read as many channels.
        window_seconds: Seconds that are encoded; the backbone's window must not be longer.
    """

    embed_dim: int
    window_seconds: float

    @abstractmethod
    def forward(self, waveform: Tensor, sample_rate: int, lengths: Sequence[int] | None = None) -> Tensor:
        """Mono waveforms (B, S) -> unpooled grid (B, T, F, D).

        Args:
            waveform: One window; longer input is cut, shorter input padded.
            sample_rate: Of ``waveform``, in Hz.
            lengths: Samples of each item that are not padding.
        """

    @abstractmethod
    def null(self) -> Tensor:
        """The grid (1, T, F, D) that can stand for "no audio prompt" (``dropped_audio: zero_fbank``)."""

    @property
    def grid_size(self) -> tuple[int, int]:
        """Tokens along time and frequency, which pooling rates must divide."""
        _, steps, bands, _ = self.null().shape
        return steps, bands

    def load_weights(self) -> None:
        """Load heavy weights; called once in each process before use. By default there is nothing to load."""

    def conventions(self) -> dict[str, str]:
        """Settings that an adapter must be used with as it was trained; kept in adapter files and checkpoints."""
        return {}

    def train(self, mode: bool = True) -> "AudioConditioner":
        """The encoder is always in eval mode."""
        return super().train(False)
