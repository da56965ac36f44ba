"""Accuracy of the instrument judge on true renders and recordings, directly and through VAE and vocoder."""

import torch

from apa_lightning.audio import normalize_level
from apa_lightning.backbones.base import Backbone
from apa_lightning.backbones.factory import load_backbone
from apa_lightning.pocket.instrument_judge import NAMES, InstrumentJudge
from apa_lightning.pocket.report.recordings import of_known_instrument
from apa_lightning.pocket.report.scores import Score
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.utils.rng import seeded


def measure(subject: Subject) -> list[Score]:
    """Measure accuracy on held-out solos, and on real recordings whose key starts with an instrument's name.

    Raises:
        InputError: If the folder lacks the judge or a part of the backbone.
    """
    trained, backbone = InstrumentJudge.from_pretrained(subject.folder), load_backbone(subject.folder)
    with seeded(subject.seed):
        untrained = InstrumentJudge().eval()
    solos = subject.clips.where(lambda fields: fields.get("kind") == "solo" and fields.get("instrument") in NAMES)
    sets = {"true renders": (solos, [fields["instrument"] for fields in solos.metadata])}
    if subject.recordings and (named := of_known_instrument(subject.recordings)):
        sets["real recordings"] = subject.recordings.take(list(named)), list(named.values())
    scores = []
    for name, (chosen, true) in sets.items():
        if not true:
            continue
        again = round_trip(backbone, chosen.waveform)
        for of, waveforms in ((name, chosen.waveform), (f"{name} through VAE and vocoder", again)):
            right, random = (
                [float(answer == one) for answer, one in zip(judge.names(waveforms), true, strict=True)]
                for judge in (trained, untrained)
            )
            scores.append(subject.score("judge", f"instrument of {of}", right, random, {"chance": 1 / len(NAMES)}))
    return scores


@torch.no_grad()
def round_trip(backbone: Backbone, waveforms: torch.Tensor) -> torch.Tensor:
    """Waveforms (N, S) encoded and decoded: the upper limit of an edit's quality."""
    return torch.cat(
        [backbone.decode(backbone.encode_audio(normalize_level(part))) for part in waveforms.split(8)]
    )  # fmt: skip
