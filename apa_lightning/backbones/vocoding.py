"""Conversion of log-mels to sound: AudioLDM2's own vocoder, the same refined by Griffin-Lim, or Griffin-Lim alone."""

from math import prod
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from apa_lightning.audio import MelSpec, fit_length
from apa_lightning.audio.griffin_lim import griffin_lim
from apa_lightning.errors import InputError

Vocoder = Literal["backbone", "refined", "griffin_lim"]
REFINEMENTS = 12
"""Iterations of Griffin-Lim on a vocoder's sound."""
CONTEXT = 96
"""Mel frames on both sides of a piece of a long mel: as much as the vocoder's receptive field."""


def chosen_vocoder(choice: str | None, vocoder: Any) -> Vocoder:
    """``choice``, or where it is ``None`` what the vocoder's own ``config.json`` names as ``vocoder_choice``.

    Raises:
        InputError: If the choice is unknown.
    """
    chosen: Any = getattr(vocoder.config, "vocoder_choice", "backbone") if choice is None else choice
    if chosen not in get_args(Vocoder):
        raise InputError(f"vocoder: {chosen!r} is unknown; choose from {', '.join(get_args(Vocoder))}.")
    return chosen


def mel_spec_of(vocoder: Any) -> MelSpec:
    """Geometry of the log-mels that a ``SpeechT5HifiGan`` reads."""
    config = vocoder.config
    return MelSpec(
        sample_rate=config.sampling_rate,
        hop_length=prod(config.upsample_rates),
        num_mels=config.model_in_dim,
        f_max=min(8_000.0, config.sampling_rate / 2),
    )


def sound_of(mel: Tensor, vocoder: Any, choice: Vocoder, piece: int) -> Tensor:
    """Log-mels (B, T, F) -> waveforms (B, T * hop_length).

    Args:
        mel: Natural log of Slaney mel magnitudes.
        vocoder: A ``SpeechT5HifiGan``.
        choice: ``refined`` keeps the vocoder's phases and fine structure and corrects the level of each mel band;
            ``griffin_lim`` starts from random phases. Both run on the CPU.
        piece: Mel frames that the vocoder converts at a time.
    """
    spec = mel_spec_of(vocoder)
    if choice == "griffin_lim":
        return griffin_lim(mel, spec).to(mel.device)
    waveform = _vocode(mel, vocoder, spec.hop_length, piece)
    if choice == "refined":
        return griffin_lim(mel, spec, REFINEMENTS, start=waveform).to(mel.device)
    return waveform


def _vocode(mel: Tensor, vocoder: Any, hop: int, piece: int) -> Tensor:
    length = mel.shape[1]
    if length <= piece + 2 * CONTEXT:
        return fit_length(vocoder(mel).float(), length * hop)
    parts = []
    for start in range(0, length, piece):
        left, right = max(0, start - CONTEXT), min(start + piece + CONTEXT, length)
        part = fit_length(vocoder(mel[:, left:right]).float(), (right - left) * hop)
        parts.append(part[:, (start - left) * hop : (min(start + piece, length) - left) * hop])
    return torch.cat(parts, dim=1)
