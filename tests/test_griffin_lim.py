"""Griffin-Lim on log-mels: near its source, and the same every time."""

import math

import pytest
import torch

from apa_lightning import InputError
from apa_lightning.audio import MelSpec, log_mel, mel_basis, normalise_level
from apa_lightning.backbone import AudioLDM2Backbone
from apa_lightning.griffin_lim import griffin_lim, magnitudes
from apa_lightning.metrics import chroma, chroma_cosine


def note(pitch: float, seconds: float = 2.56) -> torch.Tensor:
    """A tone with overtones that steps up by two semitones in the middle."""
    time = torch.arange(round(seconds * 16_000)) / 16_000
    hertz = pitch * 2 ** (2.0 * (time > seconds / 2) / 12)
    return torch.stack([torch.sin(2 * math.pi * hertz * k * time) / k for k in range(1, 5)]).sum(dim=0)


NOTES = torch.stack([note(440), note(587)])


@pytest.fixture(scope="module")
def mels() -> torch.Tensor:
    return log_mel(normalise_level(NOTES))[:, 0]


def test_griffin_lim_sounds_like_its_source(mels):
    heard = griffin_lim(mels)
    assert heard.shape == (2, 40_960) and heard.dtype == torch.float32
    assert (log_mel(heard)[:, 0] - mels).abs().mean() < 0.35
    for i, source in enumerate(NOTES):
        same, other = (chroma_cosine(chroma(heard[i], 16_000), chroma(s, 16_000)) for s in (source, NOTES[i - 1]))
        assert same > 0.9 and same > other + 0.5


def test_griffin_lim_repeats_alone_and_in_batches(mels):
    before = torch.random.get_rng_state()
    together = griffin_lim(mels, iterations=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(griffin_lim(mels[1:], iterations=4)[0], together[1])
    assert not torch.equal(griffin_lim(mels, iterations=4, seed=1), together)


def test_magnitudes_have_the_mels_they_come_from(mels):
    found = magnitudes(mels)
    assert found.shape == (2, 256, 513) and (found >= 0).all()
    again = (found @ mel_basis(MelSpec(), torch.device("cpu"))[0]).clamp(min=1e-5).log()
    assert (again - mels).abs().mean() < 0.05


@pytest.mark.parametrize(
    ("shape", "iterations", "message"),
    [
        ((2, 10, 80), 8, r"log_mel: has shape \(2, 10, 80\)"),
        ((10, 64), 8, "log_mel"),
        ((1, 10, 64), 0, "iterations: 0"),
    ],
)
def test_griffin_lim_refuses(shape, iterations, message):
    with pytest.raises(InputError, match=message):
        griffin_lim(torch.zeros(shape), iterations=iterations)


def test_a_backbone_sounds_by_griffin_lim_when_asked():
    """The decoded log-mels are the same; only what makes sound of them differs."""
    by_vocoder, by_phases = (
        AudioLDM2Backbone.from_pretrained(vocoder=choice) for choice in ("backbone", "griffin_lim")
    )
    latents = torch.randn(1, *by_phases.latent_shape(40), generator=torch.Generator().manual_seed(0))
    heard = by_phases.decode(latents)
    assert heard.shape == by_vocoder.decode(latents).shape and not torch.equal(heard, by_vocoder.decode(latents))
    mel = by_phases.vae.decode(latents / by_phases.vae.config.scaling_factor).sample[:, 0]
    assert torch.allclose(heard, griffin_lim(mel, by_phases.mel_spec), atol=1e-5)
    with pytest.raises(InputError, match="vocoder: 'wavenet' is unknown; choose 'backbone' or 'griffin_lim'"):
        AudioLDM2Backbone.from_pretrained(vocoder="wavenet")
