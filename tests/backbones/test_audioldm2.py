"""The frozen parts, loaded from the hub's own layout."""

import json
import logging
import shutil
import time

import pytest
import torch
from diffusers import AudioLDM2Pipeline, DDIMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler
from random_folders import tiny_backbone
from transformers import GPT2LMHeadModel

from apa_lightning.audio import log_mel, normalize_level
from apa_lightning.backbones.architectures import save_random_backbone
from apa_lightning.backbones.audioldm2 import PARTS, AudioLDM2Backbone
from apa_lightning.backbones.vocoding import sound_of
from apa_lightning.errors import InputError
from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.utils.rng import generator_for


def test_sizes_are_read_from_the_parts(backbone):
    assert backbone.window_seconds == 10.24
    assert backbone.window_samples == 163_840
    assert backbone.latent_shape() == (8, 256, 16)
    assert backbone.stream_width == backbone.language_model.config.n_embd


def test_frozen_and_in_eval_mode(backbone):
    backbone.train()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any(module.training for module in backbone.modules())


def test_loads_from_a_folder_whose_index_says_gpt2model(tmp_path):
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone(), folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["language_model"] = ["transformers", "GPT2Model"]
    (folder / "model_index.json").write_text(json.dumps(index))
    assert isinstance(AudioLDM2Backbone.from_pretrained(folder).language_model, GPT2LMHeadModel)


def test_loads_from_the_hub_cache_without_network(tmp_path, monkeypatch):
    """A cached hub id, in the Hugging Face cache's own layout, is read by name."""
    repository = tmp_path / "hub" / "models--someone--audioldm2"
    shutil.copytree(tiny_backbone(), repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("diffusers.pipelines.pipeline_utils.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    assert AudioLDM2Backbone.from_pretrained("someone/audioldm2").window_seconds == 10.24


def test_hub_id_without_network_is_one_message_at_once():
    start = time.monotonic()
    with pytest.raises(InputError, match="hf download nobody/nothing") as error:
        AudioLDM2Backbone.from_pretrained("nobody/nothing")
    assert "\n" not in str(error.value)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("prepare", "error", "message"),
    [
        (lambda folder: shutil.rmtree(folder), FileNotFoundError, "does not exist"),
        (lambda folder: (folder / "model_index.json").unlink(), FileNotFoundError, "holds no model_index.json"),
        (
            lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"x" * 100),
            InputError,
            "cannot be loaded",
        ),
        (lambda folder: shutil.rmtree(folder / "vae"), InputError, "cannot be loaded"),
        (lambda folder: (folder / "language_model" / "config.json").write_text("{"), InputError, "cannot be loaded"),
    ],
)
def test_damaged_folders_are_refused(tmp_path, prepare, error, message):
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone(), folder)
    prepare(folder)
    with pytest.raises(error, match=message) as raised:
        AudioLDM2Backbone.from_pretrained(folder)
    assert str(folder) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (DDIMScheduler(prediction_type="v_prediction"), "epsilon prediction is needed"),
        (EDMEulerScheduler(), "is EDMEulerScheduler, which does not say how much noise"),
        (FlowMatchEulerDiscreteScheduler(), "is FlowMatchEulerDiscreteScheduler, which does not say how much noise"),
    ],
)
def test_epsilon_prediction_and_a_noise_schedule_are_required(tmp_path, scheduler, message):
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone(), folder)
    scheduler.save_pretrained(folder / "scheduler")
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"scheduler": ["diffusers", type(scheduler).__name__]}))
    with pytest.raises(InputError, match=message):
        AudioLDM2Backbone.from_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"variant": "fp16"}, {"variant": "fp16", "max_shard_size": "100KB"}])
def test_folders_in_half_precision_are_read(tmp_path, dtype, options):
    """As diffusers saves them: its own parts and transformers' come out in the precision that is asked for."""
    pipeline = AudioLDM2Backbone.from_pretrained(tiny_backbone(64), dtype).pipeline
    pipeline.save_pretrained(tmp_path / "half", **options)
    assert bool(options) == (not (tmp_path / "half/vae/diffusion_pytorch_model.safetensors").exists())
    backbone = AudioLDM2Backbone.from_pretrained(tmp_path / "half")
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    for mine, original in zip(backbone.parameters(), pipeline_parameters(pipeline), strict=True):
        assert torch.equal(mine, original.float())
    text = backbone.encode_text(["jazz"])
    latents = backbone.encode_audio(torch.randn(1, backbone.window_samples, generator=torch.Generator().manual_seed(0)))
    assert backbone.predict(latents, torch.tensor(5), text).dtype == backbone.decode(latents).dtype == torch.float32
    assert ClapEmbedder.from_pretrained(tmp_path / "half").text(["jazz"]).isfinite().all()


def pipeline_parameters(pipeline) -> list[torch.nn.Parameter]:
    """Those of the parts in the backbone's order."""
    return [parameter for part in PARTS for parameter in getattr(pipeline, part).parameters()]


def test_a_prompt_does_not_depend_on_its_neighbours(backbone):
    together = backbone.encode_text(["jazz", "a very long prompt about a violin", ""])
    backbone._prompt_encoder._kept.clear()
    alone = backbone.encode_text(["jazz"])
    length = int(alone.mask.sum())
    assert torch.equal(together.generated[0], alone.generated[0])
    assert torch.equal(together.encoded[0, :length], alone.encoded[0])
    assert together.mask.sum(dim=1)[0] == length
    assert together.generated.shape == (3, 8, backbone.stream_width)


def test_repeated_prompts_are_encoded_once(backbone, monkeypatch):
    calls = []
    encode = backbone.pipeline.encode_prompt
    monkeypatch.setattr(
        backbone.pipeline, "encode_prompt", lambda prompts, *a, **k: calls.extend(prompts) or encode(prompts, *a, **k)
    )
    backbone.encode_text(["a", "b", "a"])
    backbone.encode_text(["b", "c"])
    assert sorted(calls) == ["a", "b", "c"]


def test_long_prompts_warn_once_of_the_text_that_each_encoder_loses(backbone, caplog):
    prompt = "violin " * 200 + "the end"
    with caplog.at_level(logging.WARNING):  # of the libraries too
        backbone.encode_text([prompt])
        backbone.encode_text([prompt])
    messages = [record.message for record in caplog.records]
    assert [message.split()[1] for message in messages] == ["CLAP", "T5"]
    assert all(message.endswith("the end' is lost.") for message in messages)
    assert "reads 512 tokens" in messages[0] and "reads 128 tokens" in messages[1]


@pytest.mark.parametrize(("words", "lost"), [(1, {}), (40, {"CLAP", "T5"})])
def test_lost_text_is_what_the_encoder_did_not_read(backbone, words, lost):
    prompt = "a solo of the violin, " * words + "piano"
    found = backbone.lost_text(prompt)
    assert set(found) == set(lost)
    for encoder, text in found.items():
        other = prompt.removesuffix(text) + "something else, and much of it"
        tokenizer = backbone.pipeline.tokenizer if encoder == "CLAP" else backbone.pipeline.tokenizer_2
        read, same = (tokenizer(one, truncation=True).input_ids for one in (prompt, other))
        assert read == same


@pytest.mark.parametrize("prompt", [None, 3, ["a"]])
def test_prompts_must_be_text(backbone, prompt):
    with pytest.raises(InputError, match=r"prompt: .* is not text"):
        backbone.encode_text([prompt])


def test_latents_are_the_vae_posterior(backbone):
    waveform = torch.randn(2, backbone.window_samples) * 0.1
    posterior = backbone.vae.encode(log_mel(normalize_level(waveform))).latent_dist
    factor = backbone.vae.config.scaling_factor
    noise = torch.randn(2, *backbone.latent_shape(), generator=generator_for(1))
    assert torch.allclose(backbone.encode_audio(waveform), posterior.mean * factor, atol=1e-6)
    drawn = backbone.sampled(backbone.encode(waveform), generator_for(1))
    assert torch.allclose(drawn, (posterior.mean + posterior.std * noise) * factor, atol=1e-5)


def test_long_audio_goes_through_windows(backbone):
    frames = backbone.window_frames * 2 + 40
    waveform = torch.randn(1, frames * backbone.hop_samples) * 0.1
    latents = backbone.encode_audio(waveform)
    assert latents.shape == (1, *backbone.latent_shape(frames))
    decoded = backbone.decode(latents)
    assert decoded.shape == waveform.shape


def test_vocoding_in_pieces_is_vocoding_at_once(backbone):
    """The vocoder is convolutional: with enough context on both sides a piece is what the whole gives."""
    mel = torch.randn(1, 2 * 1024 + 300, 64)
    with torch.no_grad():
        whole, pieces = backbone.vocoder(mel), sound_of(mel, backbone.vocoder, "backbone", 1024)
    assert pieces.shape == (1, mel.shape[1] * 160)
    assert torch.allclose(pieces, whole[:, : pieces.shape[1]], atol=1e-5)


def test_noise_prediction_is_the_pipelines_own(backbone):
    """Diffusers' AudioLDM2Pipeline run with the same streams and noise gives the same latents as our calls."""
    text = backbone.encode_text(["a violin", "drums, fast"])
    noise = torch.randn(2, *backbone.latent_shape(), generator=torch.Generator().manual_seed(0))
    pipeline = backbone.pipeline
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        prompt_embeds=text.encoded,
        attention_mask=text.mask,
        generated_prompt_embeds=text.generated,
        latents=noise.clone(),
        negative_prompt_embeds=text.encoded,
        negative_attention_mask=text.mask,
        negative_generated_prompt_embeds=text.generated,
        num_inference_steps=2,
        guidance_scale=1.0,
        audio_length_in_s=10.24,
        output_type="latent",
    ).audios
    scheduler = type(backbone.scheduler).from_config(backbone.scheduler.config)
    scheduler.set_timesteps(2)
    latents = noise
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            latents = scheduler.step(backbone.predict(latents, timestep, text), timestep, latents).prev_sample
    assert torch.allclose(latents, expected, atol=1e-5)


def test_gradient_checkpointing_changes_nothing(backbone):
    adapter = backbone.new_adapter()
    backbone.install([adapter])
    latents, text = torch.randn(1, *backbone.latent_shape()), backbone.encode_text(["a violin"])
    loa = [torch.randn(1, 8, backbone.stream_width)]

    def gradients():
        adapter.zero_grad()
        backbone.predict(latents, torch.tensor([500]), text, loa).square().mean().backward()
        return [parameter.grad.clone() for parameter in adapter.parameters()]

    plain = gradients()
    backbone.enable_gradient_checkpointing()
    assert all(torch.allclose(a, b, atol=1e-8) for a, b in zip(plain, gradients(), strict=True))


def test_diffusers_reads_a_random_folder():
    assert isinstance(AudioLDM2Pipeline.from_pretrained(tiny_backbone()).language_model, GPT2LMHeadModel)


def test_a_random_folder_depends_on_the_seed_alone(tmp_path):
    def weights(folder):
        return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}

    first = weights(tiny_backbone())
    save_random_backbone(tmp_path / "again")
    save_random_backbone(tmp_path / "other", seed=1)
    assert weights(tmp_path / "again") == first
    assert weights(tmp_path / "other") != first
    assert len(first) == 8
