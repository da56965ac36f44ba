"""Recordings, knobs and calls that the editor refuses before anything is computed."""

import numpy as np
import pytest
import soundfile
import torch
from edit_tools import edit

from apa_lightning import AudioEditor, EditRequest, InputError

RATE = 16_000


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"prompt": None}, "prompt: None; give a string"),
        ({"negative_prompt": 3}, "negative_prompt: 3"),
        ({"time_pooling": 3}, "choose one of 1, 2, 4, 8"),
        (
            {"time_pooling": 128},
            "time_pooling: 128; choose one of 1, 2, 4, 8, 16, 32, 64: the audio encoder's grid has 64",
        ),
        ({"freq_pooling": 16}, "freq_pooling: 16; choose one of 1, 2, 4, 8: "),
        ({"freq_pooling": 0}, "freq_pooling: 0"),
        ({"ap_scale": float("nan")}, "ap_scale: nan"),
        ({"guidance_scale": -1.0}, "guidance_scale: -1.0"),
        ({"num_inference_steps": 0}, "num_inference_steps: 0"),
        ({"seed": 1.5}, "seed: 1.5"),
        ({"region": (5.0, 2.0)}, r"region: \(5.0, 2.0\); give start and end in seconds, the end after"),
        ({"region": (5.0, 20.0)}, "lies outside"),
        ({"region": (1.0,)}, "give start and end"),
        ({"scheduler": "Magic"}, "scheduler: 'Magic' is not usable"),
        ({"ap_scale": {"up": {"block_9": 1.0}}}, "no adapted layer in 'up_blocks.9'"),
        ({"ap_scale": [1.0, 1.0]}, "2 scales for 1 adapters"),
        ({"window_overlap": 1.0}, "window_overlap: 1.0; give a share of a window from 0 to 0.75"),
        ({"sample_rate": 0}, "sample_rate: 0"),
        ({"batch_size": 0}, "batch_size: 0"),
    ],
)
def test_bad_knobs(editor, clip, knobs, message):
    with pytest.raises(InputError, match=message):
        edit(editor, (clip, RATE), **knobs)


def test_bad_audio(editor, tmp_path):
    for audio, message in [
        ((torch.zeros(RATE), RATE), "digital silence"),
        ((torch.ones(500), RATE), "needs at least"),
        ((torch.full((RATE,), float("nan")), RATE), "NaN"),
        ((torch.zeros(9, RATE), RATE), "at most 8 channels"),
    ]:
        with pytest.raises(InputError, match=message):
            edit(editor, audio)
    path = tmp_path / "three_hours.wav"
    with soundfile.SoundFile(path, "w", 4_000, 1, "PCM_U8") as file:
        for _ in range(3 * 60):
            file.write(np.zeros(60 * 4_000))
    with pytest.raises(InputError, match=r"limit for one edit is 1800 s"):
        edit(editor, path)


def test_misuse_of_the_editor_is_said(editor, clip):
    for call, message in [
        (lambda: editor.edit(["a.wav"], prompt="x"), "list of EditRequest"),
        (lambda: editor.edit([EditRequest(audio=(clip, RATE), prompt="x")], seed=3), "each with its own knobs"),
        (lambda: edit(editor, (clip, 0)), "sample rate is 0"),
        (lambda: edit(editor, (clip, 16_000.5)), "sample rate is 16000.5"),
        (lambda: edit(editor, (torch.zeros(0, 5), RATE)), "shape"),
        (lambda: AudioEditor(editor.backbone, editor.audio_encoder, []), "the list is empty"),
    ]:
        with pytest.raises(InputError, match=message):
            call()


def test_nothing_is_computed_when_one_request_is_bad(editor, clip, monkeypatch):
    monkeypatch.setattr(editor, "_edit_batch", lambda *a: pytest.fail("an edit was started"))
    with pytest.raises(InputError, match="silence"):
        editor.edit(
            [EditRequest(audio=(clip, RATE), prompt="a"), EditRequest(audio=(torch.zeros(RATE), RATE), prompt="b")]
        )


@pytest.mark.parametrize("strength", [0, -0.1, 1.01, float("nan"), "0.5", True])
def test_strength_out_of_range_is_refused(strength):
    with pytest.raises(InputError, match="strength: "):
        EditRequest(audio="a.wav", prompt="x", strength=strength)
