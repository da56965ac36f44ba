"""The metric of timbre transfer that neither CLAP nor AudioMAE can give: whether the target instrument is recognized."""

import math
from functools import cached_property

import torch

from apa_lightning.audio import resample
from apa_lightning.metrics import EditedClip, EditMetric
from apa_lightning.pocket.instrument_judge import NAMES, InstrumentJudge
from apa_lightning.utils.pretrained import packaged


class TargetRecognized(EditMetric):
    """1 where the instrument judge names the target in the edit, else 0; NaN for targets that it does not know.

    The judge is a small classifier that comes with the package and took no part in training what it judges.

    Args:
        judge: The judge; by default the one that comes with the package.
    """

    name = "recognised"
    title = "target recognized"
    shuffle = "prompt"
    why_missing = "no task asks for an instrument (tasks.recognise)"

    def __init__(self, judge: InstrumentJudge | None = None, **kwargs):
        super().__init__(**kwargs)
        self._given = judge

    @cached_property
    def _judge(self) -> InstrumentJudge:
        return self._given or InstrumentJudge.from_pretrained(packaged())

    def score(self, edit: EditedClip) -> float:
        """Whether the judge names ``edit.target``."""
        if edit.target not in NAMES:
            return math.nan
        waveform = resample(edit.edited.waveform, edit.edited.sample_rate, 16_000).to(torch.float32)
        return float(self._judge.names(waveform[None]) == [edit.target])
