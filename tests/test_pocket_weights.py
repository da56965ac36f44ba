"""The shipped weights on the embedded held-out clips: the quick part of the report's table."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from apa_lightning.audio import log_mel, normalise_level
from apa_lightning.pocket.assembly import packaged, sizes
from apa_lightning.pocket.vae import l1_per_clip
from datamodules.audioset import AudioSetDataModule

CLIPS = 16


@pytest.fixture(scope="module")
def held_out() -> dict:
    """Sixteen clips of 5.12 s of the embedded validation shards, spread over solos, duets and genres."""
    data = AudioSetDataModule(
        validation_shards="embedded", batch_size=CLIPS, num_workers=0, audio_length_in_s=5.12, sample_rate=16_000,
        validation_samples=CLIPS,
    )  # fmt: skip
    data.setup("validate")
    return next(iter(data.val_dataloader()))


def test_the_weights_fit_their_budget():
    assert sizes(packaged())["vae"] < 2_000_000
    for path in Path(packaged()).rglob("*.safetensors"):
        assert path.stat().st_mode & 0o044, f"{path} can only be read by its owner"


def test_the_vae_says_log_mels_again(held_out):
    vae = AutoencoderKL.from_pretrained(packaged() / "vae", torch_dtype=torch.float32).eval()
    mel = log_mel(normalise_level(held_out["waveform"], lengths=held_out["num_samples"]))
    with torch.no_grad():
        posterior = vae.encode(mel).latent_dist
        l1 = l1_per_clip(vae.decode(posterior.mean).sample, mel)
    solo = torch.tensor([fields["kind"] == "solo" for fields in held_out["metadata"]])
    assert solo.any() and not solo.all()
    assert l1[solo].mean() < 0.35 and l1[~solo].mean() < 0.25
    assert float((posterior.mean * vae.config.scaling_factor).std()) == pytest.approx(1, abs=0.15)
