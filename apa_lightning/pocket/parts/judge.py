"""The judge: names the instrument of a solo, and takes no part in training or guiding what it judges.

CLAP and AudioMAE are parts of the pocket, so neither can say whether an edit came out right; this small ResNet can.
"""

import copy
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.errors import InputError
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.parts.part import PocketPart
from apa_lightning.pocket.parts.vae import LOG_MEL_MEAN, LOG_MEL_STD
from apa_lightning.pocket.text.prompts import INSTRUMENTS
from apa_lightning.utils.pretrained import frozen, no_progress_bars
from apa_lightning.utils.rng import generator_for, randn

NAMES = tuple(INSTRUMENTS)
_FILE = "judge/model.safetensors"
_SILENCE = -11.5129  # log(1e-5), the floor of log-mels
_MASKED = (48, 10)  # longest stretch of frames and of bins that is hidden from a training clip


class InstrumentJudge(nn.Module):
    """Which of the paper's eight instruments plays: waveform at 16 kHz -> log-mel -> ResNet of 0.3 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        sizes: Any = {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128), "in_chans": 1}
        self.net = ResNet(cast(Any, BasicBlock), **sizes, num_classes=len(NAMES), drop_rate=0.1)

    @classmethod
    def from_pretrained(cls, folder: Path) -> "InstrumentJudge":
        """The judge of a pocket folder.

        Raises:
            InputError: it has none; the message names the recipe.
        """
        if not (path := Path(folder) / _FILE).is_file():
            raise InputError(
                f"{folder} holds no judge. Make it first: python -m apa_lightning fit --config configs/pocket/judge.yaml "
                f"--model.folder {folder}"
            )
        judge = cls()
        judge.load_state_dict(load_file(path))
        return frozen(judge)

    def forward(self, mel: Tensor) -> Tensor:
        """Logits (B, 8) over :data:`NAMES` of log-mels (B, 1, T, 64)."""
        return self.net((mel - LOG_MEL_MEAN) / LOG_MEL_STD)

    @torch.no_grad()
    def names(self, waveforms: Tensor, batch_size: int = 32) -> list[str]:
        """The most likely instrument of each waveform (N, S) at 16 kHz, whatever its level."""
        logits = [self(judged_mel(part)) for part in waveforms.split(batch_size)]
        return [NAMES[i] for part in logits for i in part.argmax(-1).tolist()]


class PocketJudge(PocketPart):
    """Trains the judge on rendered solos; half of each batch is heard through the VAE, whose blur is no instrument's fault.

    Args:
        folder, learning_rate, warmup_steps, weight_decay, betas, seed: see :class:`PocketPart`; ``folder``'s ``vae`` is read.

    Raises:
        InputError: a setting cannot be; ``folder`` lacks the VAE.
    """

    writes = ("judge",)

    def __init__(
        self,
        folder: Path = Path("runs/pocket/model"),
        learning_rate: float = 2e-3,
        warmup_steps: int = 50,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.99),
        seed: int = 0,
    ):
        super().__init__(folder, learning_rate, warmup_steps, weight_decay, betas, seed)
        require(self.folder, ("vae",))
        with no_progress_bars():
            self.vae = frozen(AutoencoderKL.from_pretrained(self.folder / "vae", torch_dtype=torch.float32))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator_for(seed, "judge").initial_seed())
            self.judge = InstrumentJudge()

    def train(self, mode: bool = True) -> "PocketJudge":
        """The VAE stays in eval mode."""
        super().train(mode)
        self.vae.eval()
        return self

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor | None:
        mel, answers = solos(batch)
        if not len(mel):
            return None
        draw = self.draws("disguise")
        half = len(mel) // 2
        mel = torch.cat([self._through_vae(mel[:half]), mel[half:]]) if half else mel
        with torch.random.fork_rng(devices=[]):  # dropout's draws too depend on the step alone
            torch.manual_seed(self.draws("dropout").initial_seed())
            logits = self.judge(disguised(mel, draw))
        loss = F.cross_entropy(logits, answers, label_smoothing=0.05)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(mel))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        mel, answers = solos(batch)
        if not len(mel):
            return
        for name, heard in (("accuracy", mel), ("accuracy_through_vae", self._through_vae(mel))):
            logits = self.judge(heard)
            right = (logits.argmax(-1) == answers).float().mean()
            self.log(f"val/{name}", right, batch_size=len(mel), prog_bar=True, sync_dist=True)
            if name == "accuracy":
                self.log("val/loss", F.cross_entropy(logits, answers), batch_size=len(mel), sync_dist=True)

    @torch.no_grad()
    def _through_vae(self, mel: Tensor) -> Tensor:
        return self.vae.decode(self.vae.encode(mel).latent_dist.mean).sample

    def write(self, folder: Path) -> None:
        (folder / "judge").mkdir()
        save_file(copy.deepcopy(self.judge).cpu().half().state_dict(), folder / _FILE)


def judged_mel(waveforms: Tensor, lengths: Any = None) -> Tensor:
    """Log-mel (B, 1, T, 64) of waveforms (B, S) at a peak of 0.5."""
    return log_mel(normalize_level(waveforms, lengths=lengths), MelSpec())


def solos(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Log-mels (N, 1, T, 64) and numbers of the instruments (N,) of those items of a batch that are solos of the eight."""
    numbers = [
        NAMES.index(fields["instrument"]) if fields.get("kind") == "solo" and fields.get("instrument") in NAMES else -1
        for fields in batch["metadata"]
    ]
    chosen = [i for i, number in enumerate(numbers) if number >= 0]
    lengths = batch.get("num_samples")
    waveforms = batch["waveform"][chosen]
    if not chosen:
        return waveforms.new_zeros(0, 1, 1, 64), torch.zeros(0, dtype=torch.long)
    mel = judged_mel(waveforms, [lengths[i] for i in chosen] if lengths is not None else None)
    return mel, torch.tensor([numbers[i] for i in chosen], device=mel.device)


def disguised(mel: Tensor, draw: torch.Generator) -> Tensor:
    """Log-mels (B, 1, T, F) at another level, tilt and noise floor, with a stretch of time and of bins hidden."""
    count, _, frames, bins = mel.shape

    def uniform(low: float, high: float) -> Tensor:
        return (low + (high - low) * torch.rand(count, 1, 1, 1, generator=draw)).to(mel)

    tilt = uniform(-1, 1) * torch.linspace(-1, 1, bins, device=mel.device)
    mel = torch.logaddexp(mel + uniform(-2, 1) + tilt, uniform(_SILENCE, -6) + 0.3 * randn(mel.shape, draw, mel))
    for size, longest, axis in ((frames, _MASKED[0], 2), (bins, _MASKED[1], 3)):
        start, length = uniform(0, size), uniform(0, min(longest, size // 2))
        place = torch.arange(size, device=mel.device).view([-1 if i == axis else 1 for i in range(4)])
        mel = mel.masked_fill((place >= start) & (place < start + length), _SILENCE)
    return mel.clamp(min=_SILENCE)
