"""Griffin-Lim on log-mels: near its source, and the same every time."""

import math

import pytest
import torch
import torchaudio
from random_folders import tiny_backbone

from apa_lightning import InputError
from apa_lightning.audio import MelSpec, log_mel, mel_basis, normalize_level
from apa_lightning.audio.griffin_lim import _iterate, griffin_lim, magnitudes
from apa_lightning.backbones.audioldm2 import AudioLDM2Backbone
from apa_lightning.backbones.vocoding import REFINEMENTS
from apa_lightning.metrics import Clip, chroma_similarity
from apa_lightning.pocket.stft_loss import log_spectral_distance


def note(pitch: float, seconds: float = 2.56) -> torch.Tensor:
    """A tone with overtones that steps up by two semitones in the middle."""
    time = torch.arange(round(seconds * 16_000)) / 16_000
    hertz = pitch * 2 ** (2.0 * (time > seconds / 2) / 12)
    return torch.stack([torch.sin(2 * math.pi * hertz * k * time) / k for k in range(1, 5)]).sum(dim=0)


NOTES = torch.stack([note(440), note(587)])


@pytest.fixture(scope="module")
def mels() -> torch.Tensor:
    return log_mel(normalize_level(NOTES))[:, 0]


def test_griffin_lim_sounds_like_its_source(mels):
    heard = griffin_lim(mels)
    assert heard.shape == (2, 40_960) and heard.dtype == torch.float32
    assert (log_mel(heard)[:, 0] - mels).abs().mean() < 0.35
    for i, source in enumerate(NOTES):
        same, other = (chroma_similarity(Clip(heard[i], 16_000), Clip(s, 16_000)) for s in (source, NOTES[i - 1]))
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


def test_the_iterations_are_torchaudios(mels):
    spec, magnitude = MelSpec(), magnitudes(mels[:1])[0]
    magnitude = torch.cat([magnitude, magnitude[-1:]]).T
    ours = _iterate(magnitude, torch.ones_like(magnitude, dtype=torch.complex64), spec, 3)
    theirs = torchaudio.functional.griffinlim(
        *(magnitude, torch.hann_window(spec.n_fft), spec.n_fft, spec.hop_length, spec.n_fft),
        power=1.0,
        n_iter=3,
        momentum=0.99,
        length=len(ours),
        rand_init=False,
    )
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_a_good_start_is_kept_and_put_right(mels):
    """From the source's own phases a few iterations come nearer than many from random ones, and put the level right."""
    source = normalize_level(NOTES)
    started, random = griffin_lim(mels, iterations=2, start=0.1 * source), griffin_lim(mels, iterations=32)
    ours, theirs = (log_spectral_distance(made, source) for made in (started, random))
    assert (ours < theirs).all()
    assert (started - source).square().mean() < 0.1 * source.square().mean() < (random - source).square().mean()
    assert torch.equal(griffin_lim(mels[1:], iterations=2, start=0.1 * source[1:])[0], started[1])


def test_magnitudes_keep_the_structure_that_they_begin_with(mels):
    """In a wide band at 6 kHz a mel cannot tell where the tone lies; the start can, however loud it is."""
    time = torch.arange(40_960) / 16_000
    tone = 0.3 * torch.sin(2 * math.pi * 6000 * time)[None]
    mel, spectrum = (
        log_mel(tone)[:, 0],
        torch.stft(tone, 1024, 160, window=torch.hann_window(1024), return_complex=True),
    )
    true = spectrum.abs().transpose(1, 2)[:, :-1]
    begun, even = magnitudes(mel, start=0.1 * true), magnitudes(mel)
    assert (begun - true).abs().mean() < 0.5 * (even - true).abs().mean()


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


def test_a_start_of_another_length_is_refused(mels):
    with pytest.raises(InputError, match=r"start: has shape \(2, 100\); give waveforms \(2, 40960\)"):
        griffin_lim(mels, start=torch.zeros(2, 100))


def test_a_backbone_sounds_as_asked():
    """The decoded log-mels are the same; only what makes sound of them differs."""
    by_vocoder, refined, by_phases = (
        AudioLDM2Backbone.from_pretrained(tiny_backbone(), vocoder=choice)
        for choice in ("backbone", "refined", "griffin_lim")
    )
    latents = torch.randn(1, *by_phases.latent_shape(40), generator=torch.Generator().manual_seed(0))
    plain = by_vocoder.decode(latents)
    mel = by_phases.vae.decode(latents / by_phases.vae.config.scaling_factor).sample[:, 0]
    spec = by_phases.mel_spec
    assert torch.allclose(by_phases.decode(latents), griffin_lim(mel, spec), atol=1e-5)
    assert torch.allclose(refined.decode(latents), griffin_lim(mel, spec, REFINEMENTS, start=plain), atol=1e-5)
    assert not torch.allclose(refined.decode(latents), plain, atol=1e-3)
    with pytest.raises(InputError, match="vocoder: 'wavenet' is unknown; choose from backbone, refined, griffin_lim"):
        AudioLDM2Backbone.from_pretrained(tiny_backbone(), vocoder="wavenet")
