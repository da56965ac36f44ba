"""One epoch of the data module's training loader over shards, integrity checks on."""

from lightning.pytorch import Trainer, seed_everything
from serve import serve, settings

import datamodules

given = settings()

seed_everything(0, verbose=False)
data = datamodules.AudioSetDataModule(
    train_shards=given["shards"],
    validation_shards=None,
    batch_size=given["batch_size"],
    num_workers=0,
    audio_length_in_s=given["seconds"],
    sample_rate=16_000,
)
data.prepare_data()
data.setup("fit")
data.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def unit() -> dict[str, int]:
    return {"clips": sum(len(batch["prompt"]) for batch in data.train_dataloader())}


serve(unit)
