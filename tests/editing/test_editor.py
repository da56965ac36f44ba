"""The editor: Eq. 12 against a hand-written loop, lengths, levels, windows, regions, batches."""

import math

import numpy as np
import pytest
import soundfile
import torch
from edit_tools import edit

from apa_lightning import AudioEditor, EditRequest
from apa_lightning.audio import fit_length, load_audio, resample
from apa_lightning.conditioning.pooling import pool_tokens
from apa_lightning.editing.request import EditResult
from apa_lightning.editing.source import Recording
from apa_lightning.utils.rng import generator_for, randn

RATE = 16_000


def melody(seconds: float, rate: int = RATE, seed: int = 0) -> torch.Tensor:
    """A sequence of tones, mono (S,)."""
    time = torch.arange(round(seconds * rate)) / rate
    pitches = torch.tensor(
        np.random.default_rng(seed).choice([220.0, 262, 330, 392], math.ceil(seconds * 2) + 1), dtype=torch.float32
    )
    return 0.3 * torch.sin(2 * math.pi * pitches[(time * 2).long()] * time)


@pytest.fixture(scope="module")
def clip() -> torch.Tensor:
    return melody(10.24)


@pytest.mark.parametrize("negative_prompt", ["", "a recording of the piano solo"])
def test_equation_12_against_a_hand_written_loop(editor, clip, negative_prompt):
    """eps~ = eps(c_y-) + lambda (eps(c_x, c_y) - eps(c_y-)), two separate passes, the second one without any adapter."""
    backbone, steps, scale = editor.backbone, 3, 5.0
    text, negative = backbone.encode_text(["jazz style music"]), backbone.encode_text([negative_prompt])
    loa = pool_tokens(editor.audio_encoder(clip[None]), 4)
    scheduler = type(backbone.scheduler).from_config(backbone.scheduler.config)
    scheduler.set_timesteps(steps)
    latents = randn((1, *backbone.latent_shape()), generator_for(3, "edit"), torch.empty(0))
    with torch.no_grad():
        for t in scheduler.timesteps:
            backbone.install([])
            unconditional = backbone.predict(latents, t, negative)
            backbone.install(editor.adapters)
            backbone.set_scale(0.6)
            conditional = backbone.predict(latents, t, text, [loa])
            latents = scheduler.step(unconditional + scale * (conditional - unconditional), t, latents).prev_sample
        expected = backbone.decode(latents)[0]
    result = edit(
        editor,
        (clip, RATE),
        prompt="jazz style music",
        negative_prompt=negative_prompt,
        ap_scale=0.6,
        time_pooling=4,
        guidance_scale=scale,
        num_inference_steps=steps,
        seed=3,
        match_level=False,
    )
    assert torch.allclose(result.waveform, fit_length(expected, len(clip)).clamp(-1, 1), atol=1e-5)


def test_no_second_branch_at_guidance_one_or_less(editor, clip, monkeypatch):
    sizes = []
    predict = editor.backbone.predict
    monkeypatch.setattr(
        editor.backbone,
        "predict",
        lambda latents, *a, **k: sizes.append(len(latents)) or predict(latents, *a, **k),
    )
    one = edit(editor, (clip, RATE), guidance_scale=1.0, negative_prompt="noise")
    assert sizes == [1, 1]
    assert torch.equal(edit(editor, (clip, RATE), guidance_scale=0.0).waveform, one.waveform)
    edit(editor, (clip, RATE), guidance_scale=1.1)
    assert sizes[4:] == [2, 2]


def test_published_unconditional_branch_differs(editor, clip):
    published = AudioEditor(editor.backbone, editor.audio_encoder, editor.adapters, unconditional_audio="zero_fbank")
    assert not torch.equal(edit(published, (clip, RATE)).waveform, edit(editor, (clip, RATE)).waveform)


def test_text_only_ignores_the_recording(editor):
    """alpha = 0: another recording changes nothing but the level."""
    first, second = (edit(editor, (melody(10.24, seed=s), RATE), ap_scale=0.0, match_level=False) for s in (1, 2))
    assert torch.equal(first.waveform, second.waveform)
    third = edit(editor, (melody(10.24, seed=2), RATE), ap_scale=1.0, match_level=False)
    assert not torch.equal(third.waveform, second.waveform)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_length_rate_and_level_of_the_recording_are_kept(editor, tmp_path, rate, channels):
    path = tmp_path / "in.wav"
    source = melody(1.37, rate)
    soundfile.write(path, torch.stack([source] * channels, dim=1).numpy(), rate)
    result = edit(editor, path, num_inference_steps=1)
    assert result.sample_rate == rate
    assert result.waveform.shape == source.shape
    assert torch.allclose(result.waveform.square().mean().sqrt(), source.square().mean().sqrt(), rtol=0.05)
    written, written_rate = load_audio(result.save(tmp_path / "out.wav"))
    assert (written_rate, written.shape[1]) == (rate, len(source))
    assert result.record()["seconds"] == pytest.approx(1.37, abs=1e-3)


def test_sample_rate_by_choice(editor):
    result = edit(editor, (melody(1.0, 44_100), 44_100), sample_rate=16_000, num_inference_steps=1)
    assert (result.sample_rate, len(result.waveform)) == (16_000, 16_000)


def test_a_long_recording_is_edited_without_a_seam(editor):
    """25 s in three windows: at each step neighbours agree on what they share, so no frame stands out."""
    long = melody(25.0)
    result = edit(editor, (long, RATE), num_inference_steps=3, match_level=False)
    assert result.waveform.shape == long.shape
    assert torch.isfinite(result.waveform).all()
    assert (result.waveform.unfold(0, 1600, 1600).std(dim=1) > 0).all()
    assert torch.equal(edit(editor, (long, RATE), num_inference_steps=3, match_level=False).waveform, result.waveform)


def test_windows_agree_where_they_overlap(editor):
    """A stationary recording, one noise for all windows' frames: the blend is as smooth at the seams as elsewhere."""
    from apa_lightning.utils.windows import window_starts

    backbone = editor.backbone
    tone = 0.3 * torch.sin(2 * math.pi * 440 * torch.arange(25 * RATE) / RATE)
    frames = math.ceil(len(tone) / backbone.hop_samples)
    steps = []
    decode = backbone.decode

    def spy(latents):
        steps.append(latents)
        return decode(latents)

    backbone.decode = spy
    try:
        edit(editor, (tone, RATE), num_inference_steps=4)
    finally:
        del backbone.decode
    change = (steps[0][:, :, 1:] - steps[0][:, :, :-1]).square().mean(dim=(0, 1, 3)).sqrt()
    starts = window_starts(frames, backbone.window_frames, backbone.window_frames // 4)
    edges = [edge for start in starts for edge in (start, start + backbone.window_frames) if 0 < edge < frames - 1]
    assert len(starts) == 3
    assert all(change[edge - 2 : edge + 2].max() < change.mean() + 5 * change.std() for edge in edges)


@pytest.mark.parametrize(("overlap", "count"), [(0.25, 3), (0, 2), (0.5, 3), (0.6, 4)])
def test_the_overlap_of_windows_is_a_knob(editor, monkeypatch, overlap, count):
    """A recording of two windows: a third one covers the place where they meet, unless they need not overlap."""
    sizes = []
    predictor = editor.backbone.predictor

    def counted(text, audio_tokens=()):
        model = predictor(text, audio_tokens)
        return lambda latents, time: sizes.append(len(latents)) or model(latents, time)

    monkeypatch.setattr(editor.backbone, "predictor", counted)
    sound = melody(2 * editor.backbone.window_seconds)
    edit(editor, (sound, RATE), num_inference_steps=1, guidance_scale=1, window_overlap=overlap)
    assert sum(sizes) == count


def test_only_the_region_changes(editor, clip):
    result = edit(editor, (clip, RATE), region=(3.0, 5.5))
    start, end = round(3.0 * RATE), round(5.5 * RATE)
    assert torch.equal(result.waveform[:start], clip[:start])
    assert torch.equal(result.waveform[end:], clip[end:])
    inside = slice(start + RATE // 10, end - RATE // 10)
    assert (result.waveform[inside] - clip[inside]).abs().mean() > 0.01
    jumps = result.waveform.diff().abs()
    assert jumps[start - 2 : start + 2].max() <= jumps.max()


def test_samples_above_1_outside_the_region_are_kept(clip, tmp_path):
    recording = Recording.load((4 * clip, RATE))
    request = EditRequest(audio=recording, prompt="", region=(3.0, 5.5))
    waveform, rate = recording.finish(request, 5 * melody(10.24, seed=1), RATE)
    outside = torch.cat([torch.arange(3 * RATE), torch.arange(round(5.5 * RATE), len(clip))])
    assert torch.equal(waveform[outside], 4 * clip[outside])
    assert waveform[4 * RATE : 5 * RATE].abs().max() <= recording.peak
    EditResult(request, waveform, rate).save(tmp_path / "a.wav")
    assert torch.equal(load_audio(tmp_path / "a.wav")[0][0], waveform)
    quiet = Recording.load((clip, RATE))
    assert quiet.finish(request, 5 * clip, RATE)[0].abs().max() <= 1
    assert recording.finish(EditRequest(audio=recording, prompt=""), 5 * clip, RATE)[0].abs().max() <= 1


def test_channels_that_cancel_are_said_and_one_is_edited(clip, caplog):
    recording = Recording.load((torch.stack([clip, -clip]), RATE))
    assert torch.equal(recording.waveform.abs(), clip.abs())
    assert "audio: its channels cancel" in caplog.text


def test_results_do_not_depend_on_the_batch(editor):
    requests = [
        EditRequest(
            audio=(melody(5 + i, seed=i), RATE),
            prompt=prompt,
            seed=i,
            num_inference_steps=2,
            guidance_scale=3.0 + i,
            ap_scale=scale,
        )
        for i, (prompt, scale) in enumerate(
            [("a violin", 0.5), ("a longer prompt about jazz music", 0.5), ("drums", 0.8), ("", 0.5)]
        )
    ]
    together = editor.edit(requests, batch_size=3, progress=False)
    for request, result in zip(requests, together, strict=True):
        assert result.request == editor.filled(request)
        alone = editor.edit(request, progress=False)
        assert torch.allclose(alone.waveform, result.waveform, atol=1e-4)
        assert torch.equal(editor.edit(request, progress=False).waveform, alone.waveform)  # the seed says everything


def test_seeds_and_prompts_matter(editor, clip):
    first = edit(editor, (clip, RATE)).waveform
    assert not torch.equal(edit(editor, (clip, RATE), seed=1).waveform, first)
    assert not torch.equal(edit(editor, (clip, RATE), prompt="drums").waveform, first)


def test_global_random_state_is_left_alone(editor, clip):
    state = torch.random.get_rng_state()
    edit(editor, (clip, RATE), num_inference_steps=1)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "scheduler",
    [
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "UniPCMultistepScheduler",
    ],
)
def test_schedulers_by_name(editor, clip, scheduler):
    result = edit(editor, (clip, RATE), scheduler=scheduler, num_inference_steps=3, region=(1.0, 2.0))
    assert torch.isfinite(result.waveform).all()


def test_progress_bar_counts_all_steps(editor, clip, capsys):
    edit(editor, (clip, RATE), progress=True)
    assert "2/2" in capsys.readouterr().err


def test_a_silent_region_gets_the_level_of_the_recording(editor, clip):
    source = clip.clone()
    source[2 * RATE : 4 * RATE] = 0
    result = edit(editor, (source, RATE), region=(2.0, 4.0))
    assert result.waveform[round(2.5 * RATE) : round(3.5 * RATE)].abs().max() > 0.01


def test_real_recordings(editor, eval_audio, tmp_path):
    """Right length, rate and level for every recording of the evaluation set."""
    requests = [
        EditRequest(audio=path, prompt="a recording of a flute solo", num_inference_steps=1) for path in eval_audio
    ]
    for result in editor.edit(requests, progress=False):
        waveform, rate = load_audio(result.request.audio)
        source = waveform.mean(dim=0)
        assert result.sample_rate == rate
        assert result.waveform.shape == source.shape
        level = result.waveform.square().mean().sqrt() / source.square().mean().sqrt()
        assert 0.95 < level < 1.05 or float(result.waveform.abs().max()) > 0.99  # the peak limits a loud recording
        assert resample(result.waveform, rate, RATE).isfinite().all()
