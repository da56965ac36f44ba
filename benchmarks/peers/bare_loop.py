"""Peer: the training step in a bare PyTorch loop, for the overhead of the Trainer: same module, data, optimizer and clipping."""

import apa_lightning  # noqa: F401  before torch, as on the command line: it sets the spins of torch's threads

# isort: split
from collections.abc import Iterable, Iterator
from statistics import median
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from serve import clock, device, serve, settings

import datamodules
from apa_lightning import AudioPromptModule
from apa_lightning.conditioning.dropout import audio_tokens
from apa_lightning.utils.rng import generator_for

given = settings()


def epochs(loader: Iterable[Any]) -> Iterator[Any]:
    """Batches of one epoch after another."""
    while True:
        yield from loader


def parts() -> tuple[AudioPromptModule, datamodules.AudioSetDataModule]:
    """Module and data, new for each run as in ``fit``: a module keeps the prompts that it has encoded."""
    seed_everything(0, verbose=False)
    module = AudioPromptModule()
    module.configure_model()
    data = datamodules.AudioSetDataModule(batch_size=given["batch_size"], num_workers=given["workers"])
    data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    data.trainer.strategy.connect(module)
    data.setup("fit")
    return module.to(device()), data


def unit() -> dict[str, float]:
    module, data = parts()
    optimizer = torch.optim.AdamW(module.adapter.parameters(), lr=1e-4)
    batches, seconds = epochs(data.train_dataloader()), []
    for number in range(given["steps"]):
        start = clock()
        batch = data.on_after_batch_transfer(next(batches), 0)
        draw = generator_for(0, "fit", number)  # the draws of fit, so the same pooling rates
        waveform = batch["waveform"].to(module.device)
        omega = module.pooling_rates.draw(draw)
        _, drop_audio = module.condition_dropout.draw(len(waveform), draw)
        with torch.no_grad():
            text = module.backbone.encode_text(batch["prompt"])
            grid = module.audio_encoder(waveform, module.backbone.sample_rate, batch.get("num_samples"))
            latents = module.backbone.sampled(module.backbone.encode(waveform, batch.get("num_samples")), draw)
        tokens = audio_tokens(grid, drop_audio, omega)
        losses, weights = module.objective(latents, text, [tokens], draw)
        (losses * weights).mean().backward()
        torch.nn.utils.clip_grad_norm_(module.adapter.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(clock() - start)
    middle = median(seconds[len(seconds) // 2 :])
    return {"step": middle, "clips_per_second": given["batch_size"] / middle}


serve(unit)
