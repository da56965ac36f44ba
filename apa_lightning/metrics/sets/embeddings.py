"""Embeddings that sets of recordings are compared in: one clip becomes several vectors of a fixed size."""

import math
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from apa_lightning.audio import resample
from apa_lightning.errors import InputError
from apa_lightning.metrics.clap_embedder import ClapEmbedder, clap_of
from apa_lightning.utils.pretrained import frozen, read_weights

VGGISH_RATE, VGGISH_WINDOW, VGGISH_HOP, VGGISH_FFT = 16_000, 400, 160, 512
VGGISH_BANDS, VGGISH_LOWEST, VGGISH_HIGHEST = 64, 125.0, 7500.0
VGGISH_FRAMES, VGGISH_DIMENSION = 96, 128
VGGISH_FILE = "vggish-10086976.pth"
VGGISH_PAGE = "https://github.com/harritaylor/torchvggish/releases/tag/v0.1"


class AudioEmbedding(Protocol):
    """Embeddings (N, D) of one waveform (S,); N grows with its length and may be 0.

    Attributes:
        name: Name of the embedding in reports.
        dimension: Size D.
    """

    name: str
    dimension: int

    def __call__(self, waveform: Tensor, sample_rate: int) -> Tensor: ...


class ClapEmbedding:
    """Unit-length CLAP embeddings of windows that start every ``hop_s`` seconds.

    Source: the ``clap-laion`` embeddings of fadtk (Gui et al., arXiv 2311.01616). A window has the CLAP's own length (LAION's
    10 s, of which a 10 s clip has one; the pocket's 5 s, of which it has six); neighbours overlap, so that they are fewer
    independent recordings than they count.

    Args:
        clap: The CLAP, or where to load one from.
        hop_s: Seconds between the starts of two windows.
    """

    def __init__(self, clap: ClapEmbedder | str | os.PathLike, hop_s: float = 1.0):
        self.clap, self.hop_s = clap_of(clap), hop_s
        self.name, self.dimension = f"clap ({self.clap.name})", self.clap.model.config.projection_dim

    def __call__(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Embeddings (N, D) of a waveform (S,)."""
        return self.clap.audio_windows(waveform, sample_rate, self.hop_s)


class VggishEmbedding:
    """VGGish's 128 values per 0.96 s (Hershey et al., arXiv 1609.09430), the embedding of the first FAD and of Table 1.

    The output is the last layer's, before its ReLU and without PCA, as in fadtk and frechet_audio_distance.

    Args:
        weights: Path of the PyTorch state dict ``vggish-10086976.pth`` (72 M parameters).

    Raises:
        InputError: If there is no such file, or if it holds the weights of another network.
    """

    name, dimension = "vggish", VGGISH_DIMENSION

    def __init__(self, weights: str | os.PathLike):
        path = Path(weights).expanduser()
        if not path.is_file():
            raise InputError(f"vggish: {path} does not exist. Give the file {VGGISH_FILE} from {VGGISH_PAGE}.")
        with torch.device("meta"):
            self.model = _VggishNet()
        try:
            self.model.load_state_dict(read_weights(path, "vggish"), assign=True)
        except RuntimeError:
            raise InputError(
                f"vggish: {path} holds the weights of another network. Give the file {VGGISH_FILE} from {VGGISH_PAGE}."
            ) from None
        frozen(self.model).float()  # a file may hold half precision

    @torch.no_grad()
    def __call__(self, waveform: Tensor, sample_rate: int) -> Tensor:
        """Embeddings (N, 128) of a waveform (S,): one per whole 0.96 s (96 frames)."""
        log_mel = vggish_log_mel(waveform, sample_rate)
        count = len(log_mel) // VGGISH_FRAMES
        if not count:
            return log_mel.new_zeros(0, VGGISH_DIMENSION)
        return self.model(log_mel[: count * VGGISH_FRAMES].reshape(count, 1, VGGISH_FRAMES, VGGISH_BANDS))


def load_embedding(
    name: str, clap: ClapEmbedder | str | os.PathLike = "embedded", vggish: str | os.PathLike | None = None
) -> AudioEmbedding:
    """The embedding called ``name``, ``clap`` or ``vggish``; never another one in its place.

    Args:
        name: Name of the embedding.
        clap: The CLAP for ``clap``.
        vggish: Path of the weights for ``vggish``.

    Raises:
        InputError: If the name is unknown, or if ``vggish`` lacks its weights.
    """
    if name == "clap":
        return ClapEmbedding(clap)
    if name == "vggish":
        if vggish is None:
            raise InputError(
                f"vggish: the embedding 'vggish' needs its weights, which are not part of this package. Give the path of "
                f"{VGGISH_FILE} from {VGGISH_PAGE}, or use the embedding 'clap'."
            )
        return VggishEmbedding(vggish)
    raise InputError(f"embedding: {name!r} is unknown; give 'clap' or 'vggish'.")


def vggish_log_mel(waveform: Tensor, sample_rate: int) -> Tensor:
    """VGGish's input (T, 64) for a waveform (S,): log(mel + 0.01) of magnitudes, 25 ms windows every 10 ms, 125 to 7500 Hz."""
    samples = resample(waveform.detach().float().cpu(), sample_rate, VGGISH_RATE)
    if len(samples) < VGGISH_WINDOW:
        return samples.new_zeros(0, VGGISH_BANDS)
    frames = samples.unfold(0, VGGISH_WINDOW, VGGISH_HOP) * torch.hann_window(VGGISH_WINDOW)
    return (torch.fft.rfft(frames, VGGISH_FFT).abs() @ _vggish_mel() + 0.01).log()


def _vggish_mel() -> Tensor:
    """Triangles (257, 64) whose sides are straight in mel, not in Hz as librosa's and torchaudio's are."""

    def mel(hertz: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)

    edges = np.linspace(mel(VGGISH_LOWEST), mel(VGGISH_HIGHEST), VGGISH_BANDS + 2)
    bins = mel(np.linspace(0, VGGISH_RATE / 2, VGGISH_FFT // 2 + 1))[:, None]
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    return torch.tensor(np.minimum(rising, falling).clip(min=0), dtype=torch.float32)


class _VggishNet(nn.Module):
    """The network, with the names of the published state dict."""

    def __init__(self):
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for block in ([64], [128], [256, 256], [512, 512]):
            for out in block:
                layers += [nn.Conv2d(width, out, 3, padding=1), nn.ReLU()]
                width = out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        flat = width * math.prod(size // 2**4 for size in (VGGISH_FRAMES, VGGISH_BANDS))
        self.embeddings = nn.Sequential(
            nn.Linear(flat, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, VGGISH_DIMENSION)
        )

    def forward(self, log_mel: Tensor) -> Tensor:
        """(N, 1, 96, 64) -> (N, 128)."""
        return self.embeddings(self.features(log_mel).permute(0, 2, 3, 1).flatten(1))  # channels last, as in TensorFlow
