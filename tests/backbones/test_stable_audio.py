"""Stable Audio Open: loaded from the hub's own layout, its schedule, conditions, windows and adapted layers."""

import json
import math
import shutil
import sys

import pytest
import torch
from diffusers import StableAudioPipeline
from huggingface_hub.errors import GatedRepoError
from random_folders import tiny_backbone, tiny_stable_audio

from apa_lightning import AudioMAE, StableAudioBackbone
from apa_lightning.adapters.rotary import PlacedTokens
from apa_lightning.backbones.factory import load_backbone
from apa_lightning.conditioning.long_audio import LongAudioConditioner
from apa_lightning.diffusion.sampling import denoise
from apa_lightning.diffusion.schedulers import SCHEDULERS, usable
from apa_lightning.diffusion.vp_cosine import times_at
from apa_lightning.errors import InputError


@pytest.fixture
def stable() -> StableAudioBackbone:
    return StableAudioBackbone.from_pretrained(tiny_stable_audio())


@pytest.fixture
def encoder() -> AudioMAE:
    return AudioMAE.from_pretrained(tiny_stable_audio() / "audio_encoder")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def folder_with(tmp_path, **scheduler):
    folder = tmp_path / "stable"
    shutil.copytree(tiny_stable_audio(), folder)
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | scheduler))
    return folder


# --- loading ------------------------------------------------------------------------------------------------------------


def test_the_kind_is_read_from_the_folder_and_sizes_from_the_parts():
    backbone = load_backbone(tiny_stable_audio())
    assert isinstance(backbone, StableAudioBackbone)
    assert (backbone.sample_rate, backbone.hop_samples, backbone.window_frames) == (44_100, 2048, 64)
    assert backbone.latent_shape() == (8, 64)
    assert list(backbone.adapted_layers()) == ["transformer_blocks.0.attn2", "transformer_blocks.1.attn2"]
    assert not any(one.requires_grad for one in backbone.parameters())
    assert "torchsde" not in sys.modules


def test_what_does_not_belong_to_it_is_refused_by_name(tmp_path, encoder):
    with pytest.raises(
        InputError, match=r"vocoder: 'refined' belongs to another kind of backbone.*StableAudioPipeline"
    ):
        load_backbone(tiny_stable_audio(), vocoder="refined")
    with pytest.raises(InputError, match="time_code: 'sinus' is unknown; choose one of rotary, rotary_values, none"):
        StableAudioBackbone(tiny_stable_audio(), "sinus")
    with pytest.raises(InputError, match="holds a AudioLDM2Pipeline; give a folder of a StableAudioPipeline"):
        StableAudioBackbone.from_pretrained(tiny_backbone())
    stable, other = load_backbone(tiny_stable_audio()), load_backbone(tiny_backbone())
    with pytest.raises(InputError, match="its tokens have 48 channels, the backbone's adapted layers read 16"):
        stable.fit_conditioner(AudioMAE.from_pretrained(tiny_backbone() / "audio_encoder"))
    other.new_adapter().save(tmp_path / "other.safetensors")
    with pytest.raises(
        InputError, match="belongs to a backbone of the kind audioldm2; this one is of the kind stable_audio"
    ):
        stable.new_adapter(tmp_path / "other.safetensors")
    (folder := folder_with(tmp_path)).joinpath("vae", "config.json").unlink()
    with pytest.raises(InputError, match=r"cannot be loaded as Stable Audio: vae holds no config\.json"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (
            {"_class_name": "EDMDPMSolverMultistepScheduler"},
            r"its scheduler is EDMDPMSolverMultistepScheduler: its timesteps are log\(sigma\) / 4, which no",
        ),
        ({"_class_name": "DDIMScheduler"}, "its noise schedule is not the one that the model was trained on"),
        (
            {"prediction_type": "epsilon"},
            "has prediction_type 'epsilon' and sigma_data 1.0; v_prediction and 1 are needed",
        ),
    ],
)
def test_a_scheduler_with_other_times_is_refused_with_the_reason(tmp_path, scheduler, message):
    with pytest.raises(InputError, match=message):
        load_backbone(folder_with(tmp_path, **scheduler))


def test_a_gated_repository_says_how_to_get_in(monkeypatch):
    def refuse(name):
        response = type("Response", (), {"headers": {}, "request": None, "status_code": 401})()
        raise GatedRepoError("401 Client Error", response=response)

    monkeypatch.setattr("diffusers.DiffusionPipeline.download", refuse)
    with pytest.raises(
        InputError, match=r"Accept their terms at https://huggingface.co/stabilityai/stable-audio-open-1.0, then"
    ):
        load_backbone("stabilityai/stable-audio-open-1.0")


# --- the schedule -------------------------------------------------------------------------------------------------------


def test_signal_noise_target_and_time_are_those_of_the_cosine_schedule(stable, monkeypatch):
    """Against the formulas themselves, at every timestep: z = cos(t pi/2) x + sin(t pi/2) e, v = cos e - sin x, t fed."""
    fed = []
    monkeypatch.setattr(stable.transformer, "forward", lambda z, t, **rest: fed.append(t) or (z,))
    text, every = stable.encode_text(["a"]), torch.arange(1000)
    stable.predict(torch.zeros(1000, 8, 64), every, text)
    time = fed[0].double()
    assert torch.all(time[1:] > time[:-1]) and float(time[-1]) == pytest.approx(math.atan(500) * 2 / math.pi, abs=1e-6)
    assert torch.allclose(time, (every + 1).double() / 1000 * math.atan(500) * 2 / math.pi, atol=1e-5)
    signal, spread = torch.cos(time * math.pi / 2), torch.sin(time * math.pi / 2)
    scheduler, one, zero = stable.objective().args[0].scheduler, torch.ones(1000, 1), torch.zeros(1000, 1)
    assert (scheduler.add_noise(one, zero, every)[:, 0] - signal).abs().max() < 1e-6
    assert (scheduler.add_noise(zero, one, every)[:, 0] - spread).abs().max() < 1e-6
    assert (scheduler.get_velocity(zero, one, every)[:, 0] - signal).abs().max() < 1e-6
    assert (scheduler.get_velocity(one, zero, every)[:, 0] + spread).abs().max() < 1e-6


def test_sampling_equals_a_hand_written_sampler(stable):
    """DDIM in the angle of the cosine schedule: x = cos z - sin v, e = sin z + cos v."""
    wanted = noise(1, 8, 64, seed=1).double()

    def v(z: torch.Tensor, t: float) -> torch.Tensor:  # of data that all are `wanted`
        return (math.cos(t * math.pi / 2) * z - wanted) / math.sin(t * math.pi / 2)

    scheduler = stable.make_scheduler("DDIMScheduler", 10)
    start = noise(1, 8, 64).double()
    times = [float(stable.times[int(step)]) for step in scheduler.timesteps]
    expected = start
    for time, following in zip(times, [*times[1:], 0.0], strict=True):
        velocity, angle, next_angle = v(expected, time), time * math.pi / 2, following * math.pi / 2
        clean = math.cos(angle) * expected - math.sin(angle) * velocity
        error = math.sin(angle) * expected + math.cos(angle) * velocity
        expected = math.cos(next_angle) * clean + math.sin(next_angle) * error
    made = denoise(lambda z, step: v(z, float(stable.times[int(step)])), start, scheduler, [])
    assert (made - expected).abs().max() < 1e-6
    assert (made - wanted).abs().max() < 1e-5


def test_every_scheduler_is_usable_and_edm_is_not(stable):
    assert set(usable(stable.scheduler)) == set(SCHEDULERS)
    wanted = noise(1, 8, 64, seed=1)
    for name in SCHEDULERS:
        scheduler = stable.make_scheduler(name, 10)

        def model(z, step):
            angle = float(times_at(step, stable.times)) * math.pi / 2
            return (math.cos(angle) * z - wanted) / math.sin(angle)

        made = denoise(model, noise(1, 8, 64), scheduler, [torch.Generator().manual_seed(0)])
        assert (made - wanted).abs().max() < 0.1, name
    with pytest.raises(InputError, match=r"scheduler: 'EDMDPMSolverMultistepScheduler' .*log"):
        stable.make_scheduler("EDMDPMSolverMultistepScheduler", 20)


# --- conditions ---------------------------------------------------------------------------------------------------------


def test_prediction_equals_the_pipelines_own(stable, monkeypatch):
    """Prompt, seconds and global token reach the transformer as diffusers' pipeline sends them, with a negative prompt or none."""
    pipeline: StableAudioPipeline = stable.pipeline
    calls = []
    forward = stable.transformer.forward

    def record(latents, time, **rest):
        calls.append((latents, time, rest))
        return forward(latents, time, **rest)

    monkeypatch.setattr(stable.transformer, "forward", record)
    for negative in ("noise", None):
        calls.clear()
        options = {"negative_prompt": negative, "audio_start_in_s": 0.0, "audio_end_in_s": 2.0, "output_type": "latent"}
        pipeline("a violin", num_inference_steps=1, latents=noise(1, 8, 64), **options)
        (theirs,) = calls
        text = stable.encode_text([negative or "", "a violin"])
        text = stable.placed(text, [(0.0, 1.3)] * 2)  # in whole seconds: 2
        stable.predict(theirs[0], stable.scheduler.timesteps[:1], text)
        for key in ("encoder_hidden_states", "global_hidden_states", "rotary_embedding"):
            mine, expected = calls[-1][2][key], theirs[2][key]
            assert all(torch.allclose(*pair, atol=1e-6) for pair in zip(mine, expected, strict=True)), (negative, key)


def test_places_are_whole_seconds_as_in_the_models_training(stable):
    text = stable.placed(stable.encode_text(["a", "b"]), [(0.0, 10.0), (12.45, 60.001)])
    assert text.seconds.tolist() == [[0.0, 10.0], [12.0, 61.0]]
    assert stable.encode_text(["a"]).seconds.tolist() == [[0.0, 3.0]]


def test_prompts_are_padded_to_128_tokens_and_independent_of_their_neighbours(stable):
    together = stable.encode_text(["jazz", "a long prompt about a violin", ""])
    stable._prompt_encoder._kept.clear()
    alone = stable.encode_text(["jazz"])
    assert together.states.shape == (3, 128, 16)
    assert torch.equal(together.states[0], alone.states[0])
    assert together.given.tolist() == [1, 1, 0]
    assert stable.lost_text("violin " * 100).keys() == {"T5"}


# --- audio --------------------------------------------------------------------------------------------------------------


def test_long_recordings_are_encoded_and_decoded_in_windows(stable):
    short, long = noise(1, 2, 64 * 2048), noise(1, 2, 100 * 2048)
    assert stable.encode_audio(short).shape == (1, 8, 64)
    latents = stable.encode_audio(long)
    assert latents.shape == (1, 8, 100)
    own = stable.encode_audio(long[..., : 64 * 2048])
    assert torch.allclose(latents[..., :36], own[..., :36], atol=1e-5)  # before the first cross-fade
    assert stable.decode(latents).shape == (1, 2, 100 * 2048)
    assert not torch.allclose(stable.encode_audio(long.flip(1)), latents, atol=1e-3)
    mono = long[:, 0]
    assert torch.equal(stable.encode_audio(mono), stable.encode_audio(torch.stack([mono, mono], dim=1)))


def test_the_audio_encoder_is_run_over_the_window(stable, encoder):
    fitted = stable.fit_conditioner(encoder)
    assert isinstance(fitted, LongAudioConditioner) and stable.fit_conditioner(fitted) is fitted
    assert fitted.grid_size == (24, 8) == tuple(fitted.null().shape[1:3])
    assert fitted.window_seconds == pytest.approx(3.84)
    waveform, window = noise(2, stable.window_samples), round(1.28 * 44_100)
    grid = fitted(waveform, 44_100, [stable.window_samples, window + 100])
    assert torch.equal(grid[:1, 8:16], encoder(waveform[:1, window : 2 * window], 44_100))
    assert torch.equal(grid[1, :8], encoder(waveform[1:, :window], 44_100)[0])
    padding = encoder(torch.zeros(1, window), 44_100, [0])[0]
    assert torch.equal(grid[1, 16:], padding) and torch.equal(grid[1, 8:16], padding)  # 100 samples are not one frame
    assert not torch.allclose(grid[0, 16:], padding, atol=1e-3)


# --- adapted layers -----------------------------------------------------------------------------------------------------


def predicted(stable, tokens=(), **scales):
    text = stable.encode_text(["a violin", "jazz"])
    return stable.predict(noise(2, 8, 64), torch.tensor(500), text, tokens)


def test_alpha_0_is_the_untouched_model_bit_for_bit(stable):
    untouched = predicted(stable)
    adapter, tokens = stable.new_adapter(), [noise(2, 24, 16, seed=3)]
    stable.install([adapter])
    assert torch.equal(predicted(stable), untouched)
    assert not torch.allclose(predicted(stable, tokens), untouched, atol=1e-3)
    stable.set_scale(0.0)
    assert torch.equal(predicted(stable, tokens), untouched)
    stable.install([])
    assert torch.equal(predicted(stable), untouched)


def test_an_untrained_adapter_is_the_copied_text_attention(stable):
    """Without a time code, tokens attend as text of the same states does: one layer's output doubles."""
    layer = stable.adapted_layers()["transformer_blocks.0.attn2"]
    stable.time_code = "none"
    hidden, states = noise(2, 65, 32), noise(2, 5, 16, seed=1)
    once = layer(hidden, encoder_hidden_states=states)
    stable.install([stable.new_adapter()])
    placed = PlacedTokens.over([states], 64, 64.0, 8)
    both = layer(hidden, encoder_hidden_states=states, attention_mask=placed)
    assert torch.allclose(both, 2 * once, atol=1e-6)


def test_a_time_code_tells_tokens_of_different_windows_apart(stable):
    """Two equal windows in another order are the same without a time code, and are not with one."""
    first, second = noise(2, 12, 16, seed=3), noise(2, 12, 16, seed=4)
    orders = [[torch.cat([first, second], dim=1)], [torch.cat([second, first], dim=1)]]
    found = {}
    for code in ("none", "rotary", "rotary_values"):
        stable.time_code = code
        stable.install([stable.new_adapter()])
        found[code] = [predicted(stable, tokens) for tokens in orders]
    assert torch.allclose(*found["none"], atol=1e-5)
    assert not torch.allclose(*found["rotary"], atol=1e-3)
    assert not torch.allclose(*found["rotary_values"], atol=1e-3)
    assert not torch.allclose(found["rotary"][0], found["rotary_values"][0], atol=1e-3)


def test_the_adapter_keeps_the_time_code_it_was_trained_with(stable, tmp_path):
    stable.time_code = "none"
    stable.new_adapter().save(tmp_path / "none.safetensors")
    stable.time_code = "rotary"
    stable.install([stable.new_adapter(tmp_path / "none.safetensors"), stable.new_adapter()])
    layer = stable.adapted_layers()["transformer_blocks.1.attn2"]
    assert layer.processor.time_codes == ["none", "rotary"]


def test_gradients_with_and_without_checkpointing_are_equal(stable):
    adapter, tokens = stable.new_adapter(), [noise(2, 24, 16, seed=3)]
    stable.install([adapter])
    found = []
    for _ in range(2):
        adapter.zero_grad()
        predicted(stable, tokens).square().mean().backward()
        found.append([one.grad.clone() for one in adapter.parameters()])
        stable.enable_gradient_checkpointing()
    assert all(torch.equal(*pair) and pair[0].any() for pair in zip(*found, strict=True))


def test_scales_by_layer_and_several_adapters(stable):
    first, second, tokens = stable.new_adapter(), stable.new_adapter(), noise(2, 24, 16, seed=3)
    with torch.no_grad():
        for one in second.parameters():
            one.mul_(1.5)
    stable.install([first])
    stable.set_scale({"transformer_blocks": [0.0, 0.7]})
    listed = predicted(stable, [tokens])
    stable.set_scale({"transformer_blocks.1": 0.7})
    assert torch.equal(predicted(stable, [tokens]), listed)
    stable.install([first, second])
    stable.set_scale([{"transformer_blocks.1": 0.7}, 0.0])
    assert torch.equal(predicted(stable, [tokens, tokens]), listed)
    stable.set_scale([0.0, 0.7])
    assert not torch.allclose(predicted(stable, [tokens, tokens]), listed, atol=1e-4)
