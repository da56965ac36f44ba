"""`ap_scale_end`: what alpha the layers have at each call of the model, and what that changes."""

import csv
import json
import math

import pytest
import soundfile
import torch
from random_folders import tiny_parts

from apa_lightning import AudioEditor, EditRequest, InputError
from apa_lightning.edit_jobs.editor_checks import check_against_editor
from apa_lightning.edit_jobs.manifest import Problems, read_manifest
from apa_lightning.edit_jobs.plan import plan_edits
from apa_lightning.edit_jobs.queue import _key
from apa_lightning.edit_jobs.records import flat
from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.editing.settings import EditSettings

RATE = 16_000
CLIP = 0.3 * torch.sin(2 * math.pi * 330 * torch.arange(2 * RATE) / RATE)


@pytest.fixture(scope="module")
def editor() -> AudioEditor:
    return AudioEditor.from_pretrained(**tiny_parts(64))


@pytest.fixture
def alphas(editor, monkeypatch) -> list[dict[str, list[float]]]:
    """By call of the model, the scales of the adapters in each layer."""
    seen: list[dict[str, list[float]]] = []
    predict = editor.backbone.predict

    def spy(*inputs):
        layers = editor.backbone.adapted_layers()
        seen.append({name: list(layer.processor.scales) for name, layer in layers.items()})
        return predict(*inputs)

    monkeypatch.setattr(editor.backbone, "predict", spy)
    return seen


def edit(editor: AudioEditor, **knobs) -> torch.Tensor:
    settings = {"prompt": "a violin", "guidance_scale": 1.0, "num_inference_steps": 5, "match_level": False}
    return editor.edit((CLIP, RATE), progress=False, **{**settings, **knobs}).waveform


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, [1.0, 0.8, 0.6, 0.4, 0.2]),
        ({"ap_scale": 0.2, "ap_scale_end": 1}, [0.2, 0.4, 0.6, 0.8, 1.0]),
        ({"strength": 0.6}, [1.0, 0.6, 0.2]),  # of the steps that are run
        ({"num_inference_steps": 1}, [1.0]),
        ({"scheduler": "PNDMScheduler"}, [1.0, 0.8, 0.8, 0.6, 0.4, 0.2]),  # its first step calls the model twice
        ({"scheduler": "HeunDiscreteScheduler"}, [1.0, 0.8, 0.8, 0.6, 0.6, 0.4, 0.4, 0.2, 0.2]),
        ({"guidance_scale": 3.0, "audio_guidance_scale": 1.5}, [1.0, 0.8, 0.6, 0.4, 0.2]),
    ],
)
def test_alpha_moves_in_equal_parts(editor, alphas, knobs, expected):
    edit(editor, **{"ap_scale": 1.0, "ap_scale_end": 0.2, **knobs})
    for call, alpha in zip(alphas, expected, strict=True):
        assert {round(scale, 3) for (scale,) in call.values()} == {alpha}


def test_blocks_move_from_their_own_scale_to_their_own(editor, alphas):
    """A mapping on one side and a number on the other: what a mapping does not name is 0."""
    edit(editor, ap_scale={"up": 1.0}, ap_scale_end=[0.5], num_inference_steps=3)
    for call, up, others in zip(alphas, (1.0, 0.75, 0.5), (0.0, 0.25, 0.5), strict=True):
        assert {name: scale for name, (scale,) in call.items()} == {
            name: up if name.startswith("up") else others for name in call
        }


def test_two_adapters_have_their_own_ways(editor, alphas):
    both = AudioEditor(editor.backbone, editor.audio_encoder, editor.adapters * 2)
    edit(both, ap_scale=[1.0, 0.0], ap_scale_end=[0.5, {"mid": 1.0}], num_inference_steps=2)
    first, last = alphas
    assert all(scales == [1.0, 0.0] for scales in first.values())
    assert all(scales == [0.5, float(name.startswith("mid"))] for name, scales in last.items())
    with pytest.raises(InputError, match=r"^ap_scale_end: 3 scales for 2 adapters"):
        edit(both, ap_scale_end=[0.1, 0.2, 0.3])


def test_the_same_end_changes_no_byte_and_another_does(editor, alphas):
    plain = edit(editor, ap_scale=0.6)
    assert torch.equal(edit(editor, ap_scale=0.6, ap_scale_end=0.6), plain)
    assert not torch.equal(edit(editor, ap_scale=0.6, ap_scale_end=0.0), plain)
    assert torch.equal(edit(editor, ap_scale=0.6), plain)  # nothing is left behind in the layers


def test_text_alone_that_ends_with_the_recording_needs_its_branch(editor, alphas):
    scales = {"text_guidance_scale": 5.0, "audio_guidance_scale": 2.0}
    assert EditSettings(ap_scale=0.0, ap_scale_end=0.5, **scales).guidance == (5.0, 2.0)
    assert EditSettings(ap_scale=0.0, ap_scale_end={"up": 0}, **scales).guidance == (5.0,)


def test_requests_with_other_ends_are_computed_apart(editor, alphas):
    requests = [
        EditRequest(audio=(CLIP, RATE), prompt="x", num_inference_steps=2, ap_scale_end=end)
        for end in (None, 0.1, {"up": 0.1}, 0.1)
    ]
    together = editor.edit(requests, batch_size=4, progress=False)
    assert len(alphas) == 3 * 2
    for request, result in zip(requests, together, strict=True):
        assert torch.allclose(editor.edit(request, progress=False).waveform, result.waveform, atol=1e-4)


@pytest.mark.parametrize("value", [float("nan"), "0.5", True, {"up": None}, ["x"]])
def test_ends_that_are_not_numbers_are_refused(value):
    with pytest.raises(InputError, match=r"^ap_scale_end: .*; give what ap_scale may be"):
        EditRequest(audio="a.wav", prompt="x", ap_scale_end=value)


def test_unknown_blocks_are_refused_by_the_knob_that_names_them(editor):
    with pytest.raises(InputError, match=r"^ap_scale_end: no adapted layer in 'up_blocks.9'"):
        edit(editor, ap_scale_end={"up": {"block_9": 1.0}})


def test_manifests_and_results(editor, tmp_path):
    """JSON in a CSV cell, a JSONL value; checked against the model with its line; JSON again in the table of results."""
    soundfile.write(tmp_path / "a.wav", CLIP.numpy(), RATE)
    ends = [0.2, {"up": 0.1}, {"side": 1}]
    with open(tmp_path / "m.csv", "w", newline="") as file:
        rows = [[i, "a.wav", "x", end if i == 0 else json.dumps(end)] for i, end in enumerate(ends)]
        csv.writer(file).writerows([["id", "audio", "prompt", "ap_scale_end"], *rows])
    problems = Problems()
    rows = read_manifest(tmp_path / "m.csv", ("audio",), problems)
    edits = plan_edits(rows, {"prompt": "", **vars(EditSettings())}, tmp_path, tmp_path / "out", problems)
    assert not problems.messages and [one.request.ap_scale_end for one in edits] == ends
    with pytest.raises(InputError, match=r"m.csv:4: ap_scale_end: no adapted layer in 'side'") as refused:
        check_against_editor(edits, EditSettings(), editor)
    assert "1 problem" in str(refused.value)
    assert [flat(one.request.settings())["ap_scale_end"] for one in edits] == [0.2, *map(json.dumps, ends[1:])]


def test_finished_edits_stay_finished():
    """The key of an edit without it is that of older output folders, see ``test_guidance``."""
    requests = [EditRequest(audio="a.wav", prompt="x", ap_scale_end=end) for end in (None, 0.5)]
    keys = [_key(EditDefaults().fill(request), {"adapter": "a"}) for request in requests]
    assert keys[0] == "dcb346dfd5a90bea" != keys[1]
