"""How often the judge names the instrument of true renders, as they are, through the VAE, and through VAE and vocoder."""

from pathlib import Path

import torch

from apa_lightning.audio import normalize_level
from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.pocket.parts.judge import NAMES, InstrumentJudge
from apa_lightning.pocket.report.figures import Clips, Figure
from apa_lightning.utils.bootstrap import bootstrap


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Figure]:
    """Accuracy on held-out solos, and on real recordings whose key begins with an instrument's name.

    Args:
        folder: holds ``judge`` and a whole backbone. clips: held-out, with metadata. seed: of the untrained judge and of the
            intervals. pictures: none are drawn. recordings: real recordings in windows.

    Raises:
        InputError: ``folder`` lacks the judge or a part of the backbone; there is no solo among the clips.
    """
    judge = InstrumentJudge.from_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = InstrumentJudge().eval()
    backbone = AudioLDM2Backbone.from_pretrained(folder)
    solos = clips.where(lambda fields: fields.get("kind") == "solo" and fields.get("instrument") in NAMES)
    heard = [("true renders", solos, [fields["instrument"] for fields in solos.metadata])]
    if recordings is not None and (named := of_known_instrument(recordings)):
        heard.append(("real recordings", recordings.take(list(named)), list(named.values())))
    figures = []
    for name, chosen, true in heard:
        if not true:
            continue
        again = round_trip(backbone, chosen.waveform)
        for of, waveforms in ((name, chosen.waveform), (f"{name} through VAE and vocoder", again)):
            right, before = (
                [float(said == one) for said, one in zip(who.names(waveforms), true, strict=True)]
                for who in (judge, untrained)
            )
            figures.append(
                Figure(
                    "judge",
                    f"instrument of {of}",
                    *bootstrap(right, seed),
                    len(right),
                    sum(before) / len(before),
                    {"chance": 1 / len(NAMES)},
                )
            )
    return figures


def of_known_instrument(recordings: Clips) -> dict[int, str]:
    """Number and instrument of the recordings whose key begins with the name of one of the eight."""
    keys = [key.replace("_", " ").lower() for key in recordings.keys]
    return {i: name for i, key in enumerate(keys) for name in NAMES if key.startswith(name)}


@torch.no_grad()
def round_trip(backbone: AudioLDM2Backbone, waveforms: torch.Tensor) -> torch.Tensor:
    """Waveforms (N, S) encoded and decoded: the ceiling of what an edit can sound like."""
    parts = [backbone.decode(backbone.encode_audio(normalize_level(part))) for part in waveforms.split(8)]
    return torch.cat(parts)
