"""DDP with each kind of backbone: two processes make the step that one process makes of both batches."""

import math
from functools import partial
from pathlib import Path

import lightning as L
import pytest
import torch
from fit_tools import loader
from random_folders import tiny_backbone, tiny_musicgen_backbone, tiny_stable_audio

from apa_lightning import AudioPromptModule, MusicgenBackbone
from apa_lightning.conditioning.dropout import ConditionDropout, PoolingRates

FOLDERS = {
    "audioldm2": partial(tiny_backbone, 32),
    "stable_audio": tiny_stable_audio,
    "musicgen": tiny_musicgen_backbone,
}


def build(kind: str) -> AudioPromptModule:
    folder = FOLDERS[kind]()
    module = AudioPromptModule(
        MusicgenBackbone(str(folder), 1.28) if kind == "musicgen" else str(folder),
        str(folder / "audio_encoder"),
        pooling_rates=PoolingRates((2,)),
        condition_dropout=ConditionDropout(text=0.0, audio=0.0, both=0.0),
        optimizer=partial(torch.optim.SGD, lr=1.0),
        gradient_checkpointing=True,
    )
    module.configure_model()
    return module


def fit(module: AudioPromptModule, folder: Path, **options) -> dict[str, torch.Tensor]:
    """The adapter's weights after one step on two clips."""
    backbone = module.backbone
    time = torch.arange(backbone.window_samples) / backbone.sample_rate
    tones = [
        torch.stack([0.3 * torch.sin(2 * math.pi * pitch * part * time) for part in (1, 1.5)]) for pitch in (220, 330)
    ]
    clips = [
        {"waveform": tone if backbone.audio_channels == 2 else tone[0], "prompt": f"tone {i}"}
        for i, tone in enumerate(tones)
    ]
    trainer = L.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder, **options,
    )  # fmt: skip
    trainer.fit(module, loader(clips, batch_size=1))
    return {name: weight.detach().clone() for name, weight in module.adapter.named_parameters()}


@pytest.mark.parametrize(
    "kind", ["stable_audio", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("audioldm2", "musicgen"))]
)
def test_two_processes_make_the_step_of_one_with_both_batches(kind, tmp_path, monkeypatch):
    """Each rank has a clip and a draw of its own, as the two batches that one process accumulates."""
    monkeypatch.setattr(
        "apa_lightning.module.generator_for",
        lambda seed, name, batch, rank: torch.Generator().manual_seed(batch + rank),
    )
    start = {name: weight.detach().clone() for name, weight in build(kind).adapter.named_parameters()}
    alone = fit(build(kind), tmp_path, accumulate_grad_batches=2)
    together = fit(build(kind), tmp_path, devices=2, strategy="ddp_fork")
    assert alone.keys() == together.keys() == start.keys()
    for name, weight in alone.items():
        step = (weight - start[name]).abs().max()
        assert step > 0 and (together[name] - weight).abs().max() < 1e-3 * step, name
