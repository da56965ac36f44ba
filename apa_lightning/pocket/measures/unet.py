"""Gaps of the U-Net's loss between own and foreign conditions, and instruments recognized in text-to-music."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from apa_lightning.backbones.architectures import POCKET, new_scheduler
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.instrument_judge import NAMES, InstrumentJudge
from apa_lightning.pocket.loading import load_frozen
from apa_lightning.pocket.parts.conditioning_gap import QUOTIENTS, conditioning_losses
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.scores import Score, bootstrap_excess
from apa_lightning.pocket.text.prompt_streams import PromptStreams
from apa_lightning.pocket.window_encoder import WindowEncoder
from apa_lightning.utils.pretrained import frozen
from apa_lightning.utils.rng import seeded

MOST_CLIPS, BATCH, GENERATIONS = 192, 16, 160
TARGETS = {"shuffled_excess_omega_1": ">= 0.20", "shuffled_excess_omega_2": ">= 0.10", "wrong_text_excess": "low > 0"}
WORDS = {
    "shuffled_excess": "excess of the loss with another clip's audio tokens over the clip's own",
    "wrong_text": "excess of the loss with another prompt over the right one",
}


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Score]:
    """Measure the gaps (timesteps 350 to 950), and text-to-music at guidance 7.5 without a negative prompt.

    Raises:
        InputError: If ``folder`` lacks a part.
    """
    require(folder)
    with seeded(seed):
        untrained = frozen(POCKET.build_unet())
    chosen = clips.draw(MOST_CLIPS, seed)  # neighbors share melodies
    few = chosen.take(range(min(BATCH, len(chosen))))
    losses = gap_losses(folder, chosen, seed, load_frozen(folder, "unet"))
    random = gap_losses(folder, few, seed, untrained)
    scores = []
    for name, more, less in QUOTIENTS:
        if more not in losses:
            continue
        plain = float(random[more].mean() / random[less].mean() - 1)
        kind = next(kind for kind in WORDS if name.startswith(kind))
        words = WORDS[kind] + name.removeprefix(kind).removesuffix("_excess").replace("_", " ")
        excess = bootstrap_excess(losses[more].numpy(), losses[less].numpy(), seed)
        scores.append(Score("unet", words, *excess, len(losses[more]), plain, {}, TARGETS.get(name, "")))
    return [*scores, recognized(folder, clips, seed, GENERATIONS)]


@torch.no_grad()
def gap_losses(folder: Path, clips: Clips, seed: int, unet: Any) -> dict[str, torch.Tensor]:
    """The losses of :func:`conditioning_losses` of all clips."""
    encoder, streams, scheduler = WindowEncoder(folder), PromptStreams(folder), new_scheduler()
    found: dict[str, list[torch.Tensor]] = {}
    for number, start in enumerate(range(0, len(clips), BATCH)):
        part = clips.take(range(start, min(start + BATCH, len(clips))))
        batch = {**encoder(part.waveform), "prompt": part.prompts, "labels": part.labels}
        for name, values in conditioning_losses(unet, scheduler, streams, batch, (seed, "measure", number)).items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in found.items()}


def recognized(folder: Path, clips: Clips, seed: int, count: int) -> Score:
    """The share of text-to-music outputs in which the judge names the instrument of the prompt."""
    editor = AudioEditor.from_pretrained(folder, None, folder / "audio_encoder")
    judge = InstrumentJudge.from_pretrained(folder)
    # With ap_scale 0 only the length of the recording counts.
    requests = [
        EditRequest(
            audio=(clips.waveform[0], clips.sample_rate),
            prompt=f"a recording of a {NAMES[i % len(NAMES)]} solo",
            ap_scale=0.0,
            seed=seed * count + i,
        )
        for i in range(count)
    ]
    waveforms = torch.stack([made.waveform for made in editor.edit(requests, batch_size=8, progress=False)])
    right = [float(answer == NAMES[i % len(NAMES)]) for i, answer in enumerate(judge.names(waveforms))]
    each = {name: float(np.mean(right[i :: len(NAMES)])) for i, name in enumerate(NAMES[:count])}
    name = "text alone: asked instrument recognised (guidance 7.5, no negative prompt)"
    return Score.of("unet", name, right, seed, 1 / len(NAMES), compared=each, target=">= 0.75")
