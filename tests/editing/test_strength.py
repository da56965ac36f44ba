"""SDEdit: an edit that starts from the recording under noise."""

import pytest
import torch
from edit_tools import edit

RATE = 16_000


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_strength_begins_with_the_recording_under_noise(editor, clip, scheduler, monkeypatch):
    """SDEdit: the less of the schedule is run, the nearer the latents stay to the recording's own."""
    own = editor.backbone.encode_audio(clip[None])
    calls, made = [], []
    predict, decode = editor.backbone.predict, editor.backbone.decode
    monkeypatch.setattr(editor.backbone, "predict", lambda *a, **k: calls.append(1) or predict(*a, **k))
    monkeypatch.setattr(editor.backbone, "decode", lambda latents: made.append(latents) or decode(latents))
    distances, steps = [], []
    for strength in (1.0, 0.75, 0.25, 0.05):
        calls.clear()
        knobs = {"ap_scale": 0.0, "strength": strength, "num_inference_steps": 20, "guidance_scale": 1.0}
        edit(editor, (clip, RATE), scheduler=scheduler, **knobs)
        steps.append(len(calls))
        distances.append(float((made[-1][..., : own.shape[2], :] - own).square().mean()))
    assert steps[0] > steps[1] > steps[2] > steps[3] >= 1
    assert distances[0] > distances[1] > distances[2] > distances[3]


def test_strength_counts_the_steps_that_are_run():
    from apa_lightning.diffusion.schedulers import steps_run

    assert [steps_run(50, strength) for strength in (1.0, 0.75, 0.5, 0.001)] == [50, 37, 25, 1]


def test_strength_and_region_together(editor, clip):
    """Outside of the region the recording is kept, whatever the strength."""
    result = edit(editor, (clip, RATE), strength=0.5, region=(2.0, 4.0), num_inference_steps=4)
    assert torch.equal(result.waveform[: int(1.9 * RATE)], clip[: int(1.9 * RATE)])
    assert not torch.equal(result.waveform[int(2.5 * RATE) : int(3.5 * RATE)], clip[int(2.5 * RATE) : int(3.5 * RATE)])
