"""The training-free editors on tiny real backbones: DDPM inversion and DirectAudioEdit, for epsilon (AudioLDM2) and v (Stable Audio)."""

import dataclasses
import math

import pytest
import torch
from diffusers import DDIMScheduler
from random_folders import tiny_backbone, tiny_stable_audio

from apa_lightning import AudioEditor
from apa_lightning.diffusion.schedulers import noised
from apa_lightning.errors import InputError
from apa_lightning.evaluation.systems import DDPMInversion, DirectAudioEdit, SystemRequest, make_systems
from apa_lightning.evaluation.systems.codec import Codec
from apa_lightning.evaluation.systems.ddpm_inversion import invert_and_generate
from apa_lightning.evaluation.systems.direct_audio_edit import contrast_predictions

RATE = 16_000
KINDS = (DDPMInversion, DirectAudioEdit)
#: With the guidance of the source in place of the prompt's.
SAME = {
    DDPMInversion: {"target_guidance_scale": 3.0},
    DirectAudioEdit: {"target_guidance_scale": 3.0, "last_target_guidance_scale": 3.0},
}


@pytest.fixture(scope="module", params=["epsilon", "v_prediction"])
def editor(request) -> AudioEditor:
    folder = tiny_backbone(32) if request.param == "epsilon" else tiny_stable_audio()
    editor = AudioEditor.from_pretrained(folder, None, folder / "audio_encoder")
    assert editor.backbone.scheduler.config.prediction_type == request.param
    return editor


def asked(prompt: str = "a violin", pitch: float = 220, seconds: float = 1.2, seed: int = 0, **more) -> SystemRequest:
    tone = torch.sin(2 * math.pi * pitch * torch.arange(round(seconds * RATE)) / RATE)
    about = {"source_text": "a piano", "num_inference_steps": 5} | more
    return SystemRequest(audio=(0.3 * tone, RATE), prompt=prompt, seed=seed, **about)


def sound(system, editor: AudioEditor, *requests: SystemRequest) -> list[torch.Tensor]:
    return [result.waveform for result in system.edit(editor, requests)]


def latents(system, editor: AudioEditor, *requests: SystemRequest) -> torch.Tensor:
    """What the system gives to the decoder. A tiny decoder with random weights would hide differences."""
    given = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            editor.backbone, "decode", lambda made, decode=editor.backbone.decode: given.append(made) or decode(made)
        )
        system.edit(editor, requests)
    return torch.cat(given)


@pytest.mark.parametrize("kind", KINDS)
def test_under_the_sources_own_text_the_source_comes_back(kind, editor):
    encoded = latents(Codec(), editor, asked())
    for strength in (0.6, 1.0):
        assert (latents(kind(strength=strength, **SAME[kind]), editor, asked("a piano")) - encoded).abs().max() < 1e-4
    assert (latents(kind(), editor, asked()) - encoded).abs().max() > 1e-3  # so it is the text that changed nothing


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_is_its_seeds_and_not_its_neighbours(kind, editor):
    window = editor.backbone.window_seconds
    requests = [asked(seed=3), asked("a harp", 330, seed=4), asked(seconds=window * 1.5, seed=5)]
    requests = [dataclasses.replace(one, num_inference_steps=2) for one in requests]
    together = sound(kind(), editor, *requests)
    assert [len(one) for one in together] == [round(s * RATE) for s in (1.2, 1.2, window * 1.5)]
    for request, one in zip(requests, together, strict=True):
        [alone] = sound(kind(), editor, request)
        assert (alone - one).abs().max() < 1e-3
    first, again, other = (latents(kind(), editor, asked(seed=seed)) for seed in (3, 3, 6))
    assert torch.equal(first, again) and (first - other).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_the_sources_text_may_be_left_out(kind, editor):
    """It is empty then, and counts no guidance."""
    mine, none = (kind(with_source_prompt=use) for use in (True, False))
    values = {"prompt": "a violin", "source_text": "a piano", "num_inference_steps": None, "seed": 0}
    texts = [system.settings(values)["source_text"] for system in (mine, none)]
    assert texts == ["a piano", ""] and none.name == f"{mine.name}(with_source_prompt=False)"
    with_text, without = (latents(mine, editor, asked(source_text=text)) for text in texts)
    assert (with_text - without).abs().max() > 1e-4


def test_a_knob_of_the_evaluation_goes_before_the_published_one():
    values = {"prompt": "", "source_text": "", "seed": 0}
    points = [
        [
            system.settings({**values, "num_inference_steps": steps})[name]
            for name in ("num_inference_steps", "strength")
        ]
        for system in (DDPMInversion(), DirectAudioEdit())
        for steps in (None, 10)
    ]
    assert points == [[200, 0.5], [10, 0.5], [50, 1.0], [10, 1.0]]
    scales = [DirectAudioEdit().target_guidance(progress) for progress in (0.0, 0.5, 1.0)]
    assert scales == pytest.approx([8, 12 - 4 * math.sqrt(0.5), 12])


@pytest.mark.parametrize(
    ("field", "value"), [("strength", 0), ("num_inference_steps", 0), ("source_guidance_scale", -1)]
)
def test_a_value_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(InputError, match=rf"systems: direct_audio_edit: {field}: {value}"):
        DirectAudioEdit(**{field: value})
    with pytest.raises(InputError, match="last_target_guidance_scale: -1"):
        DirectAudioEdit(last_target_guidance_scale=-1)


def test_variants_are_systems_of_their_own():
    names = [one.name for one in make_systems(["ddpm_inversion", DDPMInversion(strength=0.7)])]
    assert names == ["ddpm_inversion", "ddpm_inversion(strength=0.7)"]


# --- the mathematics, on a distribution whose best prediction is known --------------------------------------------------


@pytest.fixture
def scheduler() -> DDIMScheduler:
    made = DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False, steps_offset=1)
    made.set_timesteps(50)
    return made


def point(mean: float, scheduler: DDIMScheduler):
    """The exact epsilon of data of one value: whatever the noise, the denoised latents are ``mean``."""

    def model(latents: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        signal = scheduler.alphas_cumprod[int(time)]
        return (latents - signal.sqrt() * mean) / (1 - signal).sqrt()

    return model


@pytest.mark.parametrize("method", [invert_and_generate, contrast_predictions])
def test_from_one_value_to_another_the_whole_schedule_leads(method, scheduler):
    """Where both texts stand for one value each, the recording's own departure from its value is kept: 1.1 - 1 on top of 3."""
    draw = torch.Generator().manual_seed(0)
    latents = torch.full((1, 1, 4, 4), 1.1)
    made = method(
        latents,
        point(1.0, scheduler),
        point(3.0, scheduler),
        scheduler,
        lambda: torch.randn(1, 1, 4, 4, generator=draw),
    )
    assert (made - 3.1).abs().max() < 0.02


def test_the_noise_maps_are_edit_friendly(scheduler):
    """Their variance lies above that of DDPM's own noise, as Huberman-Spiegelglas et al. show: the levels are drawn each by itself."""
    draw, seen = torch.Generator().manual_seed(0), []
    latents = torch.randn(1, 1, 64, 64, generator=draw)

    def gaussian(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        seen.append(noisy)
        return (1 - scheduler.alphas_cumprod[int(time)]).sqrt() * noisy  # of standard normal data

    made = invert_and_generate(
        latents, gaussian, gaussian, scheduler, lambda: torch.randn(latents.shape, generator=draw), 0.5
    )
    assert torch.allclose(made, latents, atol=1e-5)
    recorded = seen[::2]  # the source's turns
    assert len(recorded) == 25 and all(torch.equal(one, other) for one, other in zip(recorded, seen[1::2], strict=True))
    levels = scheduler.timesteps[25:]
    for noisy, level in zip(recorded, levels, strict=True):
        noise = (noisy - scheduler.alphas_cumprod[level].sqrt() * latents) / (
            1 - scheduler.alphas_cumprod[level]
        ).sqrt()
        assert noise.std() == pytest.approx(1, abs=0.05)
    (first, second), (start, after) = recorded[:2], levels[:2]
    parts = [
        (noisy - noised(latents, torch.zeros_like(latents), scheduler, level)).flatten()
        for noisy, level in ((first, start), (second, after))
    ]
    assert abs(torch.corrcoef(torch.stack(parts))[0, 1]) < 0.05
