"""Whether the pocket U-Net listens to its audio tokens and to its text, and whether text alone makes the asked instrument."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AudioLDM2UNet2DConditionModel

from apa_lightning.backbones.architectures import POCKET, new_scheduler
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest
from apa_lightning.pocket.assembly import require
from apa_lightning.pocket.parts.judge import NAMES, InstrumentJudge
from apa_lightning.pocket.parts.listening import QUOTIENTS, listening_losses
from apa_lightning.pocket.report.figures import Clips, Figure, bootstrap_excess
from apa_lightning.pocket.text.prompt_streams import PromptStreams
from apa_lightning.pocket.window_encoder import WindowEncoder
from apa_lightning.utils.bootstrap import bootstrap
from apa_lightning.utils.pretrained import frozen, no_progress_bars

MOST_CLIPS, BATCH, GENERATIONS = 192, 16, 160
TARGETS = {"shuffled_excess_omega_1": ">= 0.20", "shuffled_excess_omega_2": ">= 0.10", "wrong_text_excess": "low > 0"}
WORDS = {
    "shuffled_excess": "excess of the loss with another clip's audio tokens over the clip's own",
    "wrong_text": "excess of the loss with another prompt over the right one",
}


def measure(
    folder: Path, clips: Clips, seed: int, pictures: Path | None = None, recordings: Clips | None = None
) -> list[Figure]:
    """The gates (timesteps 350 to 950), and the instruments that text alone makes at guidance 7.5 without a negative prompt.

    Args:
        folder: a whole pocket backbone with ``judge``. clips: held-out, with labels and prompts. seed: of every draw.
        pictures: none are drawn. recordings: not used.

    Raises:
        InputError: ``folder`` lacks a part.
    """
    require(folder)
    with no_progress_bars():
        trained = frozen(AudioLDM2UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = frozen(POCKET.build_unet())
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))  # neighbours share melodies
    chosen = clips.take(order[:MOST_CLIPS].tolist())
    losses, before = (
        asked(folder, chosen, seed, trained),
        asked(folder, chosen.take(range(min(BATCH, len(chosen)))), seed, untrained),
    )
    figures = []
    for name, more, less in QUOTIENTS:
        if more not in losses:
            continue
        plain = float(before[more].mean() / before[less].mean() - 1)
        kind = next(kind for kind in WORDS if name.startswith(kind))
        words = WORDS[kind] + name.removeprefix(kind).removesuffix("_excess").replace("_", " ")
        excess = bootstrap_excess(losses[more].numpy(), losses[less].numpy(), seed)
        figures.append(Figure("unet", words, *excess, len(losses[more]), plain, {}, TARGETS.get(name, "")))
    return [*figures, recognised(folder, clips, seed, GENERATIONS)]


@torch.no_grad()
def asked(folder: Path, clips: Clips, seed: int, unet: Any) -> dict[str, torch.Tensor]:
    """The losses of :func:`listening_losses` of all clips."""
    encoder, streams, scheduler = WindowEncoder(folder), PromptStreams(folder), new_scheduler()
    found: dict[str, list[torch.Tensor]] = {}
    for number, start in enumerate(range(0, len(clips), BATCH)):
        part = clips.take(range(start, min(start + BATCH, len(clips))))
        batch = {**encoder(part.waveform), "prompt": part.prompts, "labels": part.labels}
        for name, values in listening_losses(unet, scheduler, streams, batch, (seed, "measure", number)).items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in found.items()}


def recognised(folder: Path, clips: Clips, seed: int, count: int) -> Figure:
    """How often the judge hears the asked instrument in what text alone makes."""
    editor = AudioEditor.from_pretrained(folder, None, folder / "audio_encoder")
    judge = InstrumentJudge.from_pretrained(folder)
    # With alpha 0 the recording is not heard; it lends its length.
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
    right = [float(said == NAMES[i % len(NAMES)]) for i, said in enumerate(judge.names(waveforms))]
    each = {name: float(np.mean(right[i :: len(NAMES)])) for i, name in enumerate(NAMES[:count])}
    name = "text alone: asked instrument recognised (guidance 7.5, no negative prompt)"
    return Figure("unet", name, *bootstrap(right, seed), count, 1 / len(NAMES), each, ">= 0.75")
