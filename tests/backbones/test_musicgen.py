"""MusicGen on tiny random parts: attention and masks against the plain model, codes, the loss, and edits."""

import pytest
import torch
from random_folders import tiny_musicgen_backbone
from transformers import DynamicCache, EncoderDecoderCache, MusicgenForConditionalGeneration

from apa_lightning import AudioEditor, EditRequest, InputError, MusicgenBackbone
from apa_lightning.backbones.factory import load_backbone
from apa_lightning.tokens.delay_pattern import delayed
from apa_lightning.tokens.sampling import UNKNOWN, continued, guided, random_numbers

RATE, WINDOW, PAD = 32_000, 64, 64
PROMPTS = ["a", "a much longer prompt"]


def load() -> MusicgenBackbone:
    backbone = MusicgenBackbone(str(tiny_musicgen_backbone()), window_seconds=1.28)
    backbone.load_weights()
    return backbone


@pytest.fixture(scope="module")
def backbone() -> MusicgenBackbone:
    return load()


@pytest.fixture(scope="module")
def plain() -> MusicgenForConditionalGeneration:
    """The same model as transformers loads it, with its own ``sdpa``."""
    return MusicgenForConditionalGeneration.from_pretrained(tiny_musicgen_backbone()).eval()


@pytest.fixture(scope="module")
def editor(backbone) -> AudioEditor:
    return AudioEditor.from_pretrained(backbone, None, tiny_musicgen_backbone() / "audio_encoder")


def codes(batch: int, frames: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, PAD, (batch, 4, frames), generator=torch.Generator().manual_seed(seed))


def tokens(batch: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 8, 48, generator=torch.Generator().manual_seed(seed))


def noise(seconds: float, seed: int = 0) -> tuple[torch.Tensor, int]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(round(seconds * RATE), generator=draw) * 0.1, RATE


def plain_logits(plain, backbone, steps: torch.Tensor, prompts: list[str]) -> torch.Tensor:
    read = backbone.tokenizer(prompts, padding=True, return_tensors="pt")
    return plain(**read, decoder_input_ids=steps.flatten(0, 1)).logits.unflatten(0, (-1, 4))


# --- attention --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_alpha_0_is_the_untouched_model(backbone, plain):
    steps, text = delayed(codes(2, 5), PAD), backbone.encode_text(PROMPTS)
    names = backbone.model.state_dict().keys()
    with backbone.applied([backbone.new_adapter()], 0.0):
        backbone.read_audio([tokens(2)])
        untouched = backbone.logits(steps, text)
        assert backbone.model.state_dict().keys() == names
        backbone.set_scale(1.0)
        audible = backbone.logits(steps, text)
        backbone.set_scale({"layers.1": 1.0})
        one_layer = backbone.logits(steps, text)
        backbone.read_audio([])
        assert torch.equal(backbone.logits(steps, text), untouched)
    assert torch.equal(untouched, backbone.logits(steps, text))
    torch.testing.assert_close(untouched, plain_logits(plain, backbone, steps, PROMPTS), atol=1e-5, rtol=0)
    one = steps[:1], PROMPTS[1:]
    assert torch.equal(backbone.logits(one[0], backbone.encode_text(one[1])), plain_logits(plain, backbone, *one))
    assert not torch.allclose(audible, untouched, atol=1e-4) and not torch.allclose(audible, one_layer, atol=1e-4)


@torch.no_grad()
def test_masks_are_those_of_plain_sdpa(backbone, plain):
    """Prompts of unequal length, with and without an adapter: transformers drops masks of unknown attention silently."""
    steps = delayed(codes(2, 5), PAD)
    text = backbone.encode_text(PROMPTS)
    assert text.mask.sum(dim=1).tolist() == [3, text.mask.shape[1]]
    for i, prompt in enumerate(PROMPTS):
        alone = plain_logits(plain, backbone, steps[i : i + 1], [prompt])
        torch.testing.assert_close(backbone.logits(steps, text)[i : i + 1], alone, atol=1e-5, rtol=0)
    text.mask[0] = 1
    assert not torch.allclose(
        backbone.logits(steps, text)[:1], plain_logits(plain, backbone, steps[:1], ["a"]), atol=1e-4
    )
    later = steps.clone()
    later[:, :, -1] = 3
    assert torch.equal(backbone.logits(later, text)[:, :, :-1], backbone.logits(steps, text)[:, :, :-1])


def test_keys_start_as_the_text_layers_own(backbone, plain):
    """Where T5's states are projected first, both maps are one; what differs is the bias of the projection."""
    adapter, states = backbone.new_adapter(), torch.randn(3, 48)
    assert len(adapter.layer_names) == 2 and adapter.pair("layers.0.encoder_attn").to_k_ip.weight.shape == (32, 48)
    layer, bias = plain.decoder.model.decoder.layers[1].encoder_attn, plain.enc_to_dec_proj.bias
    for own, copied in ((layer.k_proj, "to_k_ip"), (layer.v_proj, "to_v_ip")):
        expected = own(plain.enc_to_dec_proj(states) - bias)
        torch.testing.assert_close(getattr(adapter.pair("layers.1.encoder_attn"), copied)(states), expected)


# --- codes ------------------------------------------------------------------------------------------------------------


def test_the_delay_pattern_is_transformers(plain):
    made = delayed(codes(2, 6), PAD)
    _, mask = plain.decoder.build_delay_pattern_mask(
        torch.cat([torch.full((8, 1), PAD), codes(2, 6).flatten(0, 1)], dim=1), PAD, max_length=11
    )
    theirs = plain.decoder.apply_delay_pattern_mask(mask, mask).unflatten(0, (2, 4))
    assert torch.equal(made[:, :, :10], torch.where(theirs == -1, PAD, theirs)[:, :, :10])


def test_audio_is_codes_of_transformers_encodec_also_in_pieces(backbone, plain, monkeypatch):
    waveform = noise(2.56)[0][None]
    mine = backbone.encode(waveform)["codes"]
    assert mine.dtype == torch.int16 and torch.equal(
        mine.long(), plain.audio_encoder.encode(waveform[:, None]).audio_codes[0]
    )
    sound = plain.audio_encoder.decode(mine.long()[None], [None]).audio_values[:, 0]
    torch.testing.assert_close(backbone.decode(mine.long()), sound, atol=1e-5, rtol=0)
    monkeypatch.setattr("apa_lightning.backbones.musicgen.backbone.PIECE_SECONDS", 1.6)
    pieces = backbone.encode(waveform)["codes"]
    assert (pieces == mine).float().mean() > 0.9 and torch.equal(pieces[:, :, :40], mine[:, :, :40])
    assert (backbone.decode(mine.long()) - sound).norm() < 0.1 * sound.norm()
    cut = mine.long().clone()
    cut[:, 2, 100:] = PAD
    assert backbone.decode(cut).shape == sound.shape and not backbone.decode(cut)[:, 64_000:].any()


def test_the_loss_is_transformers_and_falls(backbone, plain):
    clips, text = codes(2, 6), backbone.encode_text(PROMPTS)
    objective = backbone.objective()
    losses, weights = objective(clips, text, [], torch.Generator())
    read = backbone.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    steps = delayed(clips, PAD)
    theirs = plain(
        **read, decoder_input_ids=steps[:, :, :-1].flatten(0, 1), labels=steps[:, :, 1:].transpose(1, 2)
    ).loss
    assert weights.tolist() == [1, 1]
    assert losses.mean().item() == pytest.approx(theirs.item(), abs=1e-5)
    adapter = backbone.new_adapter()
    backbone.train()
    assert not any(module.training for module in backbone.modules())  # dropout and layerdrop stay off
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.03)
    found = []
    with backbone.applied([adapter], 1.0):
        for _ in range(12):
            losses = objective(clips, text, [tokens(2)], torch.Generator())[0]
            losses.mean().backward()
            assert all(weight.grad is not None and weight.grad.any() for weight in adapter.parameters())
            optimizer.step()
            optimizer.zero_grad()
            found.append(losses.mean().item())
    assert found[-1] < 0.95 * found[0]
    with pytest.raises(InputError, match="loss_weighting: inverse_snr"):
        backbone.objective("inverse_snr")


def test_checkpointed_gradients_are_equal():
    def gradients(checkpointed: bool) -> list[torch.Tensor]:
        backbone = load()
        if checkpointed:
            backbone.enable_gradient_checkpointing()
        adapter = backbone.new_adapter()
        with backbone.applied([adapter], 1.0):
            losses, _ = backbone.objective()(codes(2, 6), backbone.encode_text(PROMPTS), [tokens(2)], torch.Generator())
            losses.mean().backward()
        return [weight.grad for weight in adapter.parameters()]

    for one, other in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(one, other)


# --- generation -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_most_likely_codes_are_those_of_generate(backbone, plain):
    """Greedy decoding with guidance, against transformers' own loop: what it decodes is what our codes decode to."""
    read = backbone.tokenizer(PROMPTS, padding=True, return_tensors="pt")
    theirs = plain.generate(**read, do_sample=False, guidance_scale=3.0, max_length=10 + 4)
    text = backbone.encode_text(["", ""]).cat(backbone.encode_text(PROMPTS))
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    model = guided(lambda steps: backbone.logits(steps, text, cache), torch.full((1, 2), 3.0))
    mine = continued(
        model, torch.full((2, 4, 10), UNKNOWN), torch.tensor([10, 10]), random_numbers([0, 1], 4, 10), PAD, 0
    )
    assert mine.min() >= 0 and mine.max() < PAD
    torch.testing.assert_close(backbone.decode(mine), theirs[:, 0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_cached_and_uncached_generation_are_equal(backbone):
    """Also where codes in the middle are known, which are read together."""
    text, known = backbone.encode_text(PROMPTS), codes(2, 12)
    known[:, :, :3], known[:, :, 7:] = UNKNOWN, UNKNOWN
    known[1, :, 3:5] = UNKNOWN
    cache, read = EncoderDecoderCache(DynamicCache(), DynamicCache()), []

    def uncached(steps):
        read.append(steps)
        return backbone.logits(torch.cat(read, dim=2), text)

    with backbone.applied([backbone.new_adapter()], 0.7):
        backbone.read_audio([tokens(2)])
        found = [
            continued(model, known, torch.tensor([12, 10]), random_numbers([0, 1], 4, 12), PAD, 1.0, 10)
            for model in (lambda steps: backbone.logits(steps, text, cache), uncached)
        ]
    assert torch.equal(*found) and len({tuple(row) for row in found[0][0].T.tolist()}) > 3
    kept = known != UNKNOWN
    kept[1, :, 10:] = False
    assert torch.equal(found[0][kept], known[kept]) and (found[0][1, :, 10:] == PAD).all()


@pytest.fixture(scope="module")
def alone(editor) -> torch.Tensor:
    return editor.edit(noise(1), prompt="a violin", seed=3, progress=False).waveform


def test_an_edit_has_the_recordings_length_and_its_seed_decides_it(editor, alone):
    assert len(alone) == RATE and alone.std() > 0
    assert torch.equal(editor.edit(noise(1), prompt="a violin", seed=3, progress=False).waveform, alone)
    for other in ({"seed": 4}, {"prompt": "a flute"}, {"negative_prompt": "a piano"}, {"ap_scale": 0.0}, {"top_k": 5}):
        changed = {"prompt": "a violin", "seed": 3} | other
        assert not torch.equal(editor.edit(noise(1), **changed, progress=False).waveform, alone), other
    request = editor.edit(noise(1), prompt="a violin", seed=3, progress=False).request
    assert (request.guidance_scale, request.top_k, request.temperature) == (3.0, 250, 1.0)
    assert (request.num_inference_steps, request.scheduler) == (None, None)


def test_edits_in_a_batch_are_as_alone(editor, alone):
    requests = [
        EditRequest(audio=noise(1), prompt="a violin", seed=3),
        EditRequest(audio=noise(0.5, 1), prompt="a long prompt about a piano", seed=4, guidance_scale=5.0),
        EditRequest(audio=noise(1.2, 2), prompt="x", negative_prompt="y", seed=5, region=(0.4, 0.9)),
    ]
    results = editor.edit(requests, batch_size=3, progress=False)
    torch.testing.assert_close(results[0].waveform, alone, atol=1e-5, rtol=0)
    for request, result in list(zip(requests, results, strict=True))[1:]:
        torch.testing.assert_close(result.waveform, editor.edit(request, progress=False).waveform, atol=1e-5, rtol=0)


def test_longer_recordings_are_continued_and_each_window_reads_its_audio_prompt_once(editor, backbone, monkeypatch):
    made, calls = [], []
    decode = backbone.decode
    monkeypatch.setattr(backbone, "decode", lambda encoded: made.append(encoded) or decode(encoded))
    handle = editor.adapters[0].pair("layers.0.encoder_attn").to_k_ip.register_forward_hook(lambda *_: calls.append(1))
    long, short = noise(3), (noise(3)[0][: round(1.28 * RATE)], RATE)
    result = editor.edit(long, prompt="a violin", seed=3, progress=False)
    assert len(result.waveform) == 3 * RATE and made[0].shape == (1, 4, 150)
    assert made[0].min() >= 0 and made[0].max() < PAD
    assert len(calls) == 3  # windows of 64 frames that overlap by a quarter
    editor.edit(short, prompt="a violin", seed=3, progress=False)
    handle.remove()
    assert (made[1][:, :, :50] == made[0][:, :, :50]).all()  # the first window does not know of those after it


def test_a_region_continues_the_recording_and_says_so(editor, backbone, caplog):
    source = noise(2)
    backbone._said.clear()
    edit = editor.edit(source, prompt="x", region=(0.8, 1.2), match_level=False, progress=False).waveform
    assert "MusicGen continues from what lies before" in caplog.text and "cross-faded" in caplog.text
    inside = slice(round(0.8 * RATE), round(1.2 * RATE))
    kept = torch.ones(2 * RATE, dtype=torch.bool)
    kept[inside] = False
    assert torch.equal(edit[kept], source[0][kept]) and not torch.allclose(edit[inside], source[0][inside], atol=1e-3)


def test_what_lies_before_a_region_decides_it_and_what_comes_after_does_not(editor, backbone, monkeypatch):
    made, recorded, decode = [], codes(1, 100), backbone.decode
    before, after = recorded.clone(), recorded.clone()
    before[:, :, 30:40], after[:, :, 60:] = 5, 5
    monkeypatch.setattr(backbone, "decode", lambda encoded: made.append(encoded) or decode(encoded))
    for known in (recorded, before, after):
        monkeypatch.setattr(backbone, "encode_audio", lambda *_, known=known, **__: known)
        editor.edit(noise(2), prompt="x", region=(0.8, 1.2), progress=False)
        assert torch.equal(made[-1][:, :, :40], known[:, :, :40]) and torch.equal(made[-1][:, :, 60:], known[:, :, 60:])
    inside = [one[:, :, 40:60] for one in made]
    assert not torch.equal(inside[0], recorded[:, :, 40:60])
    assert not torch.equal(inside[0], inside[1])
    # The delay lets the last frames' later codebooks read a little of what comes after.
    assert torch.equal(inside[0][:, :, :-3], inside[2][:, :, :-3])


def test_extensions_are_new(editor):
    source = noise(1)
    edit = editor.edit(source, prompt="x", extend=(0.5, 0.4), crossfade=0.0, progress=False).waveform
    start = round(0.5 * RATE)
    assert len(edit) == round(1.9 * RATE) and torch.equal(edit[start : start + RATE], source[0])
    assert edit[:start].std() > 0 and edit[start + RATE :].std() > 0


@pytest.mark.parametrize(
    "knobs",
    [
        {"strength": 0.75},
        {"scheduler": "DDIMScheduler"},
        {"num_inference_steps": 50},
        {"guidance_interval": (0.2, 0.8)},
        {"ap_scale_end": 0.1},
        {"audio_prompts": [{"ap_scale_end": 0.1}]},
    ],
)
def test_knobs_of_denoising_are_refused_by_name(editor, knobs):
    name = "ap_scale_end" if "audio_prompts" in knobs else next(iter(knobs))
    with pytest.raises(InputError, match=rf"{name}: .*has no such knob: it draws codes .*\. Leave it out"):
        editor.edit(noise(1), prompt="x", **knobs)


def test_scales_of_text_and_audio_differ(editor, alone):
    equal = {"text_guidance_scale": 3.0, "audio_guidance_scale": 3.0}
    for knobs, same in ((equal, True), ({**equal, "audio_guidance_scale": 1.0}, False)):
        edit = editor.edit(noise(1), prompt="a violin", seed=3, progress=False, **knobs).waveform
        assert torch.allclose(edit, alone, atol=1e-5) == same


def test_what_is_not_a_mono_musicgen_is_refused(tmp_path):
    folder = tiny_musicgen_backbone()
    assert isinstance(load_backbone(folder), MusicgenBackbone)
    with pytest.raises(InputError, match="vocoder: 'refined' belongs to another kind of backbone"):
        load_backbone(folder, vocoder="refined")
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(InputError, match="cannot be loaded as MusicGen"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["MusicgenMelodyForConditionalGeneration"]}')
    with pytest.raises(InputError, match="holds a MusicgenMelodyForConditionalGeneration; this program knows"):
        load_backbone(tmp_path)
    with pytest.raises(InputError, match=r"window_seconds: 0\.5"):
        MusicgenBackbone(str(folder), window_seconds=0.5)
