"""Gaps of the U-Net's loss between own and foreign conditions, and instruments recognized in text-to-music."""

from typing import Any

import numpy as np
import torch

from apa_lightning.adapters.attention import install, set_scale, with_audio_tokens
from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.backbones.architectures import POCKET, new_scheduler
from apa_lightning.backbones.audioldm2 import adapted_layers
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.request import EditRequest
from apa_lightning.pocket.assembly import load_frozen, require
from apa_lightning.pocket.instrument_judge import NAMES, InstrumentJudge
from apa_lightning.pocket.parts.conditioning_gap import (
    GATE,
    QUOTIENTS,
    conditioning_losses,
    denoising_loss,
    sample,
    spread,
)
from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.scores import Score, bootstrap_excess
from apa_lightning.pocket.report.subject import Subject
from apa_lightning.pocket.text.prompt_streams import PromptStreams
from apa_lightning.pocket.window_encoder import WindowEncoder
from apa_lightning.utils.pretrained import frozen
from apa_lightning.utils.rng import generator_for, seeded

MOST_CLIPS, BATCH, GENERATIONS, FEW_BATCHES = 192, 16, 160, 4
TARGETS = {"shuffled_excess_omega_1": ">= 0.20", "shuffled_excess_omega_2": ">= 0.10", "wrong_text_excess": "low > 0"}
WORDS = {
    "shuffled_excess": "excess of the loss with another clip's audio tokens over the clip's own",
    "wrong_text": "excess of the loss with another prompt over the right one",
}


def measure(subject: Subject) -> list[Score]:
    """Measure the gaps (timesteps 350 to 950), and text-to-music at guidance 7.5 without a negative prompt.

    Raises:
        InputError: If the folder lacks a part.
    """
    require(subject.folder)
    with seeded(subject.seed):
        untrained = frozen(POCKET.build_unet())
    chosen = subject.clips.draw(MOST_CLIPS, subject.seed)  # neighbors share melodies
    batches = [chosen.take(range(i, min(i + BATCH, len(chosen)))) for i in range(0, len(chosen), BATCH)]
    unet = load_frozen(subject.folder, "unet")
    losses = gap_losses(subject, batches, unet, install_adapter(subject, unet))
    random = gap_losses(subject, batches[:1], untrained)
    scores = []
    for name, more, less in QUOTIENTS:
        if more not in losses:
            continue
        plain = float(random[more].mean() / random[less].mean() - 1)
        kind = next(kind for kind in WORDS if name.startswith(kind))
        words = WORDS[kind] + name.removeprefix(kind).removesuffix("_excess").replace("_", " ")
        excess = bootstrap_excess(losses[more].numpy(), losses[less].numpy(), subject.seed)
        scores.append(Score("unet", words, *excess, len(losses[more]), plain, {}, TARGETS.get(name, "")))
    return [*scores, *ablated(subject, batches[:FEW_BATCHES]), recognized(subject, GENERATIONS)]


def install_adapter(subject: Subject, unet: Any) -> bool:
    """Install the adapter that the proof is about, if there is one; returns whether there is."""
    if subject.adapter is None:
        return False
    layers = adapted_layers(unet, WindowEncoder(subject.folder).audio_encoder.embed_dim)
    install(layers, [AudioPromptAdapter(layers).load(subject.adapter)])
    return True


@torch.no_grad()
def ablated(subject: Subject, batches: list[Clips]) -> list[Score]:
    """How much the loss grows, at omega 1, where a single layer of the adapter, or of its untrained copy, has alpha 0.

    A layer for which it does not grow gives an adapter nothing to work with.
    """
    unet, encoder, streams = (
        load_frozen(subject.folder, "unet"),
        WindowEncoder(subject.folder),
        PromptStreams(subject.folder),
    )
    layers = adapted_layers(unet, encoder.audio_encoder.embed_dim)
    adapter = AudioPromptAdapter(layers)
    install(layers, [adapter.load(subject.adapter) if subject.adapter else adapter])
    losses: dict[str, list[torch.Tensor]] = {name: [] for name in ("", *layers)}
    for number, clips in enumerate(batches):
        encoded, text = encoder.columns(clips.waveform), streams(clips.prompts)
        latents = sample(encoded, generator_for(subject.seed, "latents", number))
        timesteps = spread(GATE, len(latents), generator_for(subject.seed, "timesteps", number))
        loa = with_audio_tokens(text.generated, [pool_tokens(encoded["grid"].float())])
        for left_out, found in losses.items():
            set_scale(layers, {name: float(name != left_out) for name in layers})
            draw = generator_for(subject.seed, "noise", number)
            found.append(denoising_loss(unet, new_scheduler(), latents, timesteps, text, loa, draw))
    whole, *parts = (torch.cat(found).numpy() for found in losses.values())
    words = "excess of the loss without the adapter in {}"
    return [
        Score("unet", words.format(name), *bootstrap_excess(one, whole, subject.seed), len(one))
        for name, one in zip(layers, parts, strict=True)
    ]


@torch.no_grad()
def gap_losses(subject: Subject, batches: list, unet: Any, adapted: bool = False) -> dict[str, torch.Tensor]:
    """The losses of :func:`conditioning_losses` of all clips of the batches."""
    encoder, streams, scheduler = WindowEncoder(subject.folder), PromptStreams(subject.folder), new_scheduler()
    found: dict[str, list[torch.Tensor]] = {}
    for number, clips in enumerate(batches):
        batch = {**encoder.columns(clips.waveform), "prompt": clips.prompts, "labels": clips.labels}
        key = (subject.seed, "measure", number)
        for name, values in conditioning_losses(unet, scheduler, streams, batch, key, adapted).items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in found.items()}


def recognized(subject: Subject, count: int) -> Score:
    """The share of text-to-music outputs in which the judge names the instrument of the prompt."""
    editor = AudioEditor.from_pretrained(subject.folder, None, subject.folder / "audio_encoder")
    judge = InstrumentJudge.from_pretrained(subject.folder)
    asked = [NAMES[i % len(NAMES)] for i in range(count)]
    audio = subject.clips.waveform[0], subject.clips.sample_rate  # With ap_scale 0 only its length counts.
    knobs: Any = {"ap_scale": 0.0, "guidance_scale": 7.5, "num_inference_steps": 50, "scheduler": "DDIMScheduler"}
    requests = [
        EditRequest(audio=audio, prompt=f"a recording of a {name} solo", seed=subject.seed * count + i, **knobs)
        for i, name in enumerate(asked)
    ]
    waveforms = torch.stack([made.waveform for made in editor.edit(requests, batch_size=8, progress=False)])
    right = [float(answer == name) for answer, name in zip(judge.names(waveforms), asked, strict=True)]
    each = {name: float(np.mean(right[i :: len(NAMES)])) for i, name in enumerate(NAMES[:count])}
    name = "text alone: asked instrument recognized (guidance 7.5, no negative prompt)"
    return subject.score("unet", name, right, 1 / len(NAMES), each, ">= 0.75")
