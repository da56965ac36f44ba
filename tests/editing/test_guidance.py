"""Two guidance scales: the three branches against a hand-written loop, the identities of the equation, batches, keys."""

import math
from dataclasses import replace

import pytest
import torch
from random_folders import tiny_parts

from apa_lightning import AudioEditor, EditRequest, InputError
from apa_lightning.audio import fit_length
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.edit_jobs.queue import _key
from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.utils.rng import generator_for, randn

RATE = 16_000
TWO = {"text_guidance_scale": 5.0, "audio_guidance_scale": 1.5}


@pytest.fixture(scope="module")
def editor() -> AudioEditor:
    return AudioEditor.from_pretrained(**tiny_parts(64))


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    time = torch.arange(2 * RATE) / RATE
    return 0.3 * torch.sin(2 * math.pi * 330 * time) * (time % 0.5)


def edit(editor: AudioEditor, clip: torch.Tensor, **knobs) -> torch.Tensor:
    settings = {"prompt": "a violin", "negative_prompt": "a longer text about noise", "num_inference_steps": 3}
    return editor.edit((clip, RATE), progress=False, **{**settings, "match_level": False, **knobs}).waveform


@pytest.fixture
def branches(editor, monkeypatch) -> list[int]:
    """The items of each call of the model."""
    sizes: list[int] = []
    predict = editor.backbone.predict
    monkeypatch.setattr(
        editor.backbone, "predict", lambda latents, *rest: sizes.append(len(latents)) or predict(latents, *rest)
    )
    return sizes


@pytest.mark.parametrize(
    ("unconditional_audio", "scheduler"), [("zeros", "DDIMScheduler"), ("zero_fbank", "HeunDiscreteScheduler")]
)
def test_three_branches_against_a_hand_written_loop(editor, clip, unconditional_audio, scheduler):
    """Three passes: the negative prompt without the recording, the prompt without it, both. No knob of Eq. 12 has a part."""
    backbone, steps = editor.backbone, 3
    text, negative = backbone.encode_text(["a violin"]), backbone.encode_text(["a longer text about noise"])
    window = fit_length(clip, backbone.window_samples)[None]
    loa = pool_tokens(editor.audio_encoder(window, RATE, [len(clip)]), 2)
    silence = {"zeros": torch.zeros_like(loa), "zero_fbank": pool_tokens(editor.audio_encoder.null(), 2)}
    nothing = silence[unconditional_audio]
    sampler = backbone.make_scheduler(scheduler, steps)
    latents = randn((1, *backbone.latent_shape()), generator_for(3, "edit"), torch.empty(0)) * sampler.init_noise_sigma
    with torch.no_grad(), backbone.applied(editor.adapters, 0.6):
        for time in sampler.timesteps:
            scaled = sampler.scale_model_input(latents, time)
            none = backbone.predict(scaled, time, negative, [nothing])
            words = backbone.predict(scaled, time, text, [nothing])
            both = backbone.predict(scaled, time, text, [loa])
            latents = sampler.step(none + 5 * (words - none) + 1.5 * (both - words), time, latents).prev_sample
        expected = fit_length(backbone.decode(latents)[0], len(clip)).clamp(-1, 1)
    own = AudioEditor(backbone, editor.audio_encoder, editor.adapters, unconditional_audio)
    for guidance_scale in (7.5, 0.0):
        knobs = {"ap_scale": 0.6, "seed": 3, "scheduler": scheduler, "guidance_scale": guidance_scale}
        assert torch.allclose(edit(own, clip, **TWO, **knobs), expected, atol=1e-5)


def test_equal_scales_are_equation_12_to_the_bit(editor, clip, branches):
    plain = edit(editor, clip, guidance_scale=4.0)
    for knobs in (
        {"text_guidance_scale": 4.0, "audio_guidance_scale": 4},
        {"text_guidance_scale": 4.0, "guidance_scale": 4.0},
        {"audio_guidance_scale": 4.0, "guidance_scale": 4.0},
    ):
        assert torch.equal(edit(editor, clip, **knobs), plain)
    assert set(branches) == {2}
    off = edit(editor, clip, guidance_scale=1.0)
    assert torch.equal(edit(editor, clip, text_guidance_scale=0.5, audio_guidance_scale=0.5), off)
    assert set(branches[12:]) == {1}


def test_nearly_equal_scales_are_nearly_equation_12(editor, clip, branches):
    plain = edit(editor, clip, guidance_scale=4.0)
    near = edit(editor, clip, guidance_scale=4.0, audio_guidance_scale=4.0 + 1e-6)
    assert branches == [2] * 3 + [3] * 3
    assert torch.allclose(near, plain, atol=1e-4)


def test_scales_that_leave_conditions_out(editor, clip, branches):
    """0 for the recording is text alone, whatever it is; 1 and 1 would be the model itself."""
    alone = edit(editor, clip, ap_scale=0.0, guidance_scale=5.0)
    assert torch.allclose(edit(editor, clip, text_guidance_scale=5.0, audio_guidance_scale=0.0), alone, atol=1e-4)
    near_one = edit(editor, clip, text_guidance_scale=1.0, audio_guidance_scale=1.0 + 1e-6)
    assert torch.allclose(near_one, edit(editor, clip, guidance_scale=1.0), atol=1e-4)


@pytest.mark.parametrize("silent", [0, 0.0, {"up": 0.0}, [0.0], {}])
def test_without_alpha_only_the_text_counts(editor, clip, branches, silent):
    """SDEdit and text alone: no third branch."""
    alone = edit(editor, clip, ap_scale=0.0, guidance_scale=5.0)
    assert torch.equal(edit(editor, clip, ap_scale=silent, **TWO), alone)
    assert set(branches) == {2}


def test_each_item_of_a_batch_has_its_own_scales(editor, clip, branches):
    """One, two and three branches are computed apart, and each request gets what it gets alone."""
    scales = [
        {"guidance_scale": 1.0}, {"guidance_scale": 3.0}, TWO, {"text_guidance_scale": 2.0}, {"guidance_scale": 6.0},
        {"audio_guidance_scale": 0.0}, {"text_guidance_scale": 0.2, "audio_guidance_scale": 0.2},
    ]  # fmt: skip
    requests = [
        EditRequest(audio=(clip, RATE), prompt=f"text {'x ' * i}", seed=i, num_inference_steps=2, **one)
        for i, one in enumerate(scales)
    ]
    together = editor.edit(requests, batch_size=8, progress=False)
    assert branches == [2, 2, 4, 4, 9, 9]
    for request, result in zip(requests, together, strict=True):
        assert torch.allclose(editor.edit(request, progress=False).waveform, result.waveform, atol=1e-4)


def test_a_recording_of_several_windows(editor, clip):
    long = clip.repeat(3)
    plain, two = (edit(editor, long, num_inference_steps=1, **knobs) for knobs in ({}, TWO))
    assert len(two) == len(plain) == len(long) and not torch.equal(two, plain)


def test_the_negative_prompt_that_is_cut_is_told_where_it_is_read(editor, clip):
    long = "noise " * 200
    for knobs, told in (({"guidance_scale": 1.0}, False), (TWO, True), ({"text_guidance_scale": 0.0}, True)):
        request = EditRequest(
            audio=(clip, RATE),
            prompt="x",
            negative_prompt=long,
            num_inference_steps=1,
            **{"guidance_scale": 1.0, **knobs},
        )
        lost = editor.edit(request, progress=False).lost_text
        assert any(name.startswith("negative_prompt") for name in lost) is told


@pytest.mark.parametrize(
    ("interval", "guided"),
    [
        (None, [1, 1, 1, 1]),
        ((0, 1), [1, 1, 1, 1]),
        ([0.2, 0.6], [1, 1, 0, 0]),
        ((0.6, 1), [0, 0, 1, 1]),
        ((0.1, 0.2), [0] * 4),
    ],
)
@pytest.mark.parametrize("scales", [{"guidance_scale": 4.0}, TWO])
def test_guidance_in_an_interval(editor, clip, branches, interval, guided, scales):
    """Four steps, at 0.249, 0.499, 0.749 and 0.999 of the schedule; outside of the interval one branch, that without guidance."""
    knobs = {"num_inference_steps": 4, **scales}
    inside = edit(editor, clip, guidance_interval=interval, **knobs)
    assert branches == [(2 + (scales is TWO)) if one else 1 for one in guided]
    whole, off = edit(editor, clip, **knobs), edit(editor, clip, num_inference_steps=4, guidance_scale=1.0)
    assert torch.equal(inside, whole) is all(guided) and torch.equal(inside, off) is not any(guided)


def test_an_interval_is_of_noise_levels_whatever_is_run(editor, clip, branches):
    """Strength 0.5 runs the last two of four steps."""
    edit(editor, clip, num_inference_steps=4, strength=0.5, guidance_interval=(0, 0.8))
    assert branches == [2, 1]


def test_edits_with_one_interval_share_a_batch(editor, clip, branches):
    requests = [
        EditRequest(audio=(clip, RATE), prompt="x", num_inference_steps=1, guidance_interval=interval)
        for interval in (None, (0, 1), [0.0, 1.0], (0, 0.5))
    ]
    editor.edit(requests, progress=False)
    assert branches == [2, 4, 1]


@pytest.mark.parametrize(
    "value", [(0.5, 0.5), (0.6, 0.2), (-0.1, 1), (0, 1.1), 0.5, "0.2", (0, True), (0, 0.5, 1), (0, float("nan"))]
)
def test_intervals_out_of_range_are_refused(value):
    with pytest.raises(InputError, match=r"^guidance_interval: .*; give a start and a later end from 0"):
        EditRequest(audio="a.wav", prompt="x", guidance_interval=value)


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), True, "3", [1.0]])
def test_scales_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=f"^{name}: .*; give a number of 0 or more, or leave it out"):
        EditRequest(audio="a.wav", prompt="x", **{name: value})


def test_finished_edits_stay_finished():
    """An edit's key names the scales only where they are given: those of older output folders are unchanged."""
    for knobs, key in (
        ({}, "dcb346dfd5a90bea"),
        ({"ap_scale": {"up": 0.5}, "region": (0, 1), "guidance_scale": 3}, "3726cde1fd9585f7"),
    ):
        request = EditDefaults().fill(EditRequest(audio="a.wav", prompt="x", **knobs))  # with the paper's values
        assert _key(request, {"adapter": "a"}) == key
        for more in (*({name: 2.0} for name in TWO), {"guidance_interval": (0, 0.5)}):
            assert _key(replace(request, **more), {"adapter": "a"}) != key
