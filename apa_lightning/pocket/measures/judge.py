"""Accuracy of the instrument judge on true renders and recordings, directly and through VAE and vocoder."""

from pathlib import Path

import torch

from apa_lightning.audio import normalize_level
from apa_lightning.backbones.base import Backbone
from apa_lightning.backbones.factory import load_backbone
from apa_lightning.pocket.instrument_judge import NAMES, InstrumentJudge
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.scores import Score
from apa_lightning.utils.rng import seeded


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Score]:
    """Measure accuracy on held-out solos, and on real recordings whose key starts with an instrument's name.

    Raises:
        InputError: If ``folder`` lacks the judge or a part of the backbone.
    """
    trained = InstrumentJudge.from_pretrained(folder)
    with seeded(seed):
        untrained = InstrumentJudge().eval()
    backbone = load_backbone(folder)
    solos = clips.where(lambda fields: fields.get("kind") == "solo" and fields.get("instrument") in NAMES)
    sets = [("true renders", solos, [fields["instrument"] for fields in solos.metadata])]
    if recordings is not None and (named := of_known_instrument(recordings)):
        sets.append(("real recordings", recordings.take(list(named)), list(named.values())))
    scores = []
    for name, chosen, true in sets:
        if not true:
            continue
        again = round_trip(backbone, chosen.waveform)
        for of, waveforms in ((name, chosen.waveform), (f"{name} through VAE and vocoder", again)):
            right, random = (
                [float(answer == one) for answer, one in zip(judge.names(waveforms), true, strict=True)]
                for judge in (trained, untrained)
            )
            compared = {"chance": 1 / len(NAMES)}
            scores.append(Score.of("judge", f"instrument of {of}", right, seed, random, compared=compared))
    return scores


def of_known_instrument(recordings: Clips) -> dict[int, str]:
    """Number and instrument of the recordings whose key starts with the name of one of the eight."""
    keys = [key.replace("_", " ").lower() for key in recordings.keys]
    return {i: name for i, key in enumerate(keys) for name in NAMES if key.startswith(name)}


@torch.no_grad()
def round_trip(backbone: Backbone, waveforms: torch.Tensor) -> torch.Tensor:
    """Waveforms (N, S) encoded and decoded: the upper limit of an edit's quality."""
    parts = [backbone.decode(backbone.encode_audio(normalize_level(part))) for part in waveforms.split(8)]
    return torch.cat(parts)
