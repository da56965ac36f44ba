"""Training the instrument judge on rendered solos."""

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from apa_lightning.pocket.assembly import load_frozen
from apa_lightning.pocket.instrument_judge import JUDGE_FILE, NAMES, InstrumentJudge, judged_mel
from apa_lightning.pocket.parts.part import FOLDER, PocketPart
from apa_lightning.utils.rng import generator_for, randn, seeded

_SILENCE = -11.5129  # log(1e-5), the floor of log-mels
_MASKED = (48, 10)  # longest stretch of frames and of bins that is hidden from a training clip


class PocketJudge(PocketPart):
    """Trains the judge; half of each batch goes through the VAE, so that its blur does not count against an instrument.

    Args:
        folder: Folder of the pocket backbone; its ``vae`` is read.
        **schedule: Settings of :class:`PocketPart`.
    """

    writes = ("judge",)
    evaluated = ("vae",)

    def __init__(self, folder: Path = FOLDER, **schedule: Any):
        super().__init__(folder, **schedule)
        self.vae = load_frozen(self.folder, "vae")
        with seeded(generator_for(self.seed, "judge").initial_seed()):
            self.judge = InstrumentJudge()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor | None:
        mel, answers = solos(batch)
        if not len(mel):
            return None
        draw = self.draws("disguise")
        half = len(mel) // 2
        mel = torch.cat([self._through_vae(mel[:half]), mel[half:]]) if half else mel
        with self.dropout_draws():
            logits = self.judge(disguised(mel, draw))
        loss = F.cross_entropy(logits, answers, label_smoothing=0.05)
        self.log_scores("train", {"loss": loss}, len(mel))
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        mel, answers = solos(batch)
        if not len(mel):
            return
        logits, through_vae = self.judge(mel), self.judge(self._through_vae(mel))
        scores = {"loss": F.cross_entropy(logits, answers)}
        for name, values in (("accuracy", logits), ("accuracy_through_vae", through_vae)):
            scores[name] = (values.argmax(-1) == answers).float().mean()
        self.log_scores("val", scores, len(mel), bar="accuracy")

    @torch.no_grad()
    def _through_vae(self, mel: Tensor) -> Tensor:
        return self.vae.decode(self.vae.encode(mel).latent_dist.mean).sample

    def write(self, folder: Path) -> None:
        (folder / "judge").mkdir()
        save_file(copy.deepcopy(self.judge).cpu().half().state_dict(), folder / JUDGE_FILE)


def solos(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Log-mels (N, 1, T, 64) and instrument numbers (N,) of those items of a batch that are solos of the eight."""
    played = {i: fields.get("instrument") for i, fields in enumerate(batch["metadata"]) if fields.get("kind") == "solo"}
    numbers = {i: NAMES.index(name) for i, name in played.items() if name in NAMES}
    lengths, waveforms = batch.get("num_samples"), batch["waveform"][list(numbers)]
    if not numbers:
        return waveforms.new_zeros(0, 1, 1, 64), torch.zeros(0, dtype=torch.long)
    mel = judged_mel(waveforms, [lengths[i] for i in numbers] if lengths is not None else None)
    return mel, torch.tensor(list(numbers.values()), device=mel.device)


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
