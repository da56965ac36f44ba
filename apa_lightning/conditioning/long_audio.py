"""An audio encoder over more seconds than it encodes at once: window after window."""

from collections.abc import Sequence

import torch
from torch import Tensor

from apa_lightning.audio import fit_length
from apa_lightning.conditioning.base import AudioConditioner


class LongAudioConditioner(AudioConditioner):
    """An encoder run over windows that follow one another, as many as cover the wanted seconds; the last may reach beyond them.

    The grid's time axis is that of all windows, so that the pooling rates which divide a window's grid divide it too. A window
    of nothing but padding is encoded as the padding of a short recording is.

    Args:
        encoder: Of one window.
        seconds: To be covered.
    """

    def __init__(self, encoder: AudioConditioner, seconds: float):
        super().__init__()
        self.encoder, self.embed_dim = encoder, encoder.embed_dim
        self.count = -(-round(seconds * 1000) // round(encoder.window_seconds * 1000))
        self.window_seconds = self.count * encoder.window_seconds

    def conventions(self) -> dict[str, str]:
        """The encoder's own."""
        return self.encoder.conventions()

    @property
    def grid_size(self) -> tuple[int, int]:
        """Tokens along time, of all windows, and along frequency."""
        steps, bands = self.encoder.grid_size
        return steps * self.count, bands

    def forward(self, waveform: Tensor, sample_rate: int, lengths: Sequence[int] | None = None) -> Tensor:
        """Mono waveforms (B, S) -> unpooled grid (B, T, F, D), see :class:`AudioConditioner`."""
        window = round(self.encoder.window_seconds * sample_rate)
        windows = fit_length(waveform, window * self.count).unflatten(-1, (self.count, window)).flatten(0, 1)
        whole = [waveform.shape[-1]] * len(waveform) if lengths is None else lengths
        parts = [min(max(length - i * window, 0), window) for length in whole for i in range(self.count)]
        real = [i for i, part in enumerate(parts) if part]
        kinds = real + [i for i, part in enumerate(parts) if not part][:1]  # all padding is alike
        grids = self.encoder(windows[kinds], sample_rate, [parts[i] for i in kinds])
        places = {i: place for place, i in enumerate(real)}
        return grids[[places.get(i, len(grids) - 1) for i in range(len(parts))]].reshape(
            len(waveform), -1, *grids.shape[2:]
        )

    def null(self) -> Tensor:
        """The encoder's own, for every window: (1, T, F, D)."""
        return torch.cat([self.encoder.null()] * self.count, dim=1)


def covering(encoder: AudioConditioner, seconds: float) -> AudioConditioner:
    """The encoder itself where it encodes so many seconds, else over as many windows as cover them."""
    return encoder if encoder.window_seconds >= seconds - 0.05 else LongAudioConditioner(encoder, seconds)
