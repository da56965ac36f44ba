"""The instrument judge: a classifier of solos that takes no part in training or guiding the model it judges.

CLAP and AudioMAE are parts of the pocket, so neither can judge their own edits; this small ResNet can.
"""

from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from timm.models.resnet import BasicBlock, ResNet
from torch import Tensor, nn

from apa_lightning.audio import MelSpec, log_mel, normalize_level
from apa_lightning.errors import InputError
from apa_lightning.pocket.text.prompts import INSTRUMENTS
from apa_lightning.utils.pretrained import frozen

NAMES = tuple(INSTRUMENTS)
JUDGE_FILE = "judge/model.safetensors"
LOG_MEL_MEAN, LOG_MEL_STD = -5.0, 2.5
"""Mean and standard deviation of log-mels of music, rounded."""


class InstrumentJudge(nn.Module):
    """Names which of the paper's eight instruments plays: waveform at 16 kHz -> log-mel -> ResNet of 0.3 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        sizes: Any = {"layers": (1, 1, 1, 1), "channels": (16, 32, 64, 128), "in_chans": 1}
        self.net = ResNet(cast(Any, BasicBlock), **sizes, num_classes=len(NAMES), drop_rate=0.1)

    @classmethod
    def from_pretrained(cls, folder: Path) -> "InstrumentJudge":
        """The judge of a pocket folder.

        Raises:
            InputError: If the folder holds none; the message names the recipe.
        """
        if not (path := Path(folder) / JUDGE_FILE).is_file():
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


def judged_mel(waveforms: Tensor, lengths: Any = None) -> Tensor:
    """Log-mel (B, 1, T, 64) of waveforms (B, S) at a peak of 0.5."""
    return log_mel(normalize_level(waveforms, lengths=lengths), MelSpec())
