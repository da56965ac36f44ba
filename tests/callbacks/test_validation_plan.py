"""The edits that a validation plans, and callback settings that are refused."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fit_tools import PLAN, build, fit
from lightning.pytorch.strategies import FSDPStrategy

from apa_lightning.errors import InputError
from apa_lightning.module import AudioPromptModule
from callbacks.adapter_ema import AdapterEMA
from callbacks.adapter_export import AdapterExport
from callbacks.validation.audio_samples import AudioSamples
from callbacks.validation.edit_metrics import EditMetrics
from callbacks.validation.edits import ValidationEdits
from callbacks.validation.plan import HeldOutClip, ValidationPlan, own_targets
from callbacks.validation.spectrogram import spectrogram_picture


@pytest.fixture()
def module() -> AudioPromptModule:
    return build()


def batch(*labels: str) -> dict:
    waveform = torch.sin(torch.arange(20_480) / 20)
    return {
        "key": [f"{label}-{i}" for i, label in enumerate(labels)],
        "waveform": waveform.expand(len(labels), -1),
        "labels": [[label] for label in labels],
    }


def test_clips_of_known_and_different_instruments_come_first(module):
    room = ValidationEdits(ValidationPlan(num_clips=3))
    room.observe(batch("Rock music", "Piano", "Piano"), module)
    room.observe(batch("Rock music", "Piano", "Piano"), module)  # a second callback shows the same one
    room.observe({**batch("x", "Flute"), "key": ["x", "late flute"]}, module)
    assert [clip.labels[0] for _, clip in room._candidates] == ["Piano", "Flute", "Piano"]


def test_silent_clips_are_left_out_with_their_name(module, caplog):
    room = ValidationEdits(ValidationPlan())
    room.observe(
        {**batch("Piano", "Flute"), "waveform": torch.stack([torch.zeros(20_480), torch.ones(20_480)])}, module
    )
    assert [clip.key for _, clip in room._candidates] == ["Flute-1"]
    assert "Piano-0" in caplog.text


def test_a_batch_without_waveforms_is_no_error(module):
    room = ValidationEdits(ValidationPlan())
    room.observe({"key": ["a"], "latents": torch.zeros(1)}, module)
    assert room._candidates == []


@pytest.mark.parametrize(
    ("label", "own"),
    [
        ("Violin, fiddle", ["violin"]),
        ("Marimba, xylophone", ["marimba"]),
        ("Harpsichord", []),
        ("Acoustic guitar", ["acoustic guitar"]),
        ("Guitar", []),
        ("Hip hop music", ["hip-hop"]),
        ("Heavy metal", ["metal"]),
        ("Electric piano", ["piano"]),
    ],
)
def test_own_targets(label, own):
    assert own_targets([label], [*ValidationPlan().targets, "hip-hop", "metal"]) == own


def test_prompts_skip_the_clips_own_instrument_and_name_it_as_negative():
    wave = torch.ones(16_000)
    plan = ValidationPlan(num_clips=2, targets=["piano", "violin", "flute"], targets_per_clip=2, seed=7)
    edits = plan.edits([HeldOutClip("a/b c", wave, ["Piano"]), HeldOutClip("d", wave, ["Drum"])], 16_000)
    assert [(edit.edited.prompt, edit.edited.negative_prompt) for edit in edits] == [
        ("a recording of a violin solo", "a recording of the piano solo"),
        ("a recording of a flute solo", "a recording of the piano solo"),
        ("a recording of a violin solo", ""),
        ("a recording of a flute solo", ""),
    ]
    assert edits[0].edited.name == "a_b_c-to-violin"
    assert len({edit.edited.seed for edit in edits}) == 4
    assert all(edit.text_only.ap_scale == 0 and edit.text_only.seed == edit.edited.seed for edit in edits)
    later = plan.edits([HeldOutClip("d", wave, [])], 16_000, process=1)
    assert not {edit.edited.seed for edit in later} & {edit.edited.seed for edit in edits}


def test_text_alone_has_no_part_of_the_recording():
    plan = ValidationPlan(ap_scale=0.5, ap_scale_end=0.2, guidance_scale=7.5, text_guidance_scale=3.0)
    (edit, *_) = plan.edits([HeldOutClip("a", torch.ones(9), [])], 16_000)
    assert edit.edited.guidance == (3.0, 7.5)
    assert (edit.text_only.ap_scale, edit.text_only.ap_scale_end, edit.text_only.guidance) == (0.0, None, (3.0,))


def test_a_genre_task_is_a_plan_of_its_own():
    plan = ValidationPlan(
        targets=["jazz", "rock"],
        prompt="{} style music",
        negative_prompt="low quality music",
        ap_scale=0.4,
        time_pooling=1,
    )
    (edit,) = plan.edits([HeldOutClip("a", torch.ones(9), ["Jazz"])], 16_000)
    assert (edit.edited.prompt, edit.edited.negative_prompt) == ("rock style music", "low quality music")
    first, second = AudioSamples(PLAN), AudioSamples(plan, name="genre")
    assert first.state_key != second.state_key


def test_a_picture_of_any_prompt():
    waves = {"source": torch.randn(16_000) * 0.1, "text_only": torch.zeros(24_000)}
    picture = spectrogram_picture(waves, 16_000, "a $price_{of} 5$ and " + "a very long prompt " * 20)
    assert picture.dtype == np.uint8
    assert picture.shape[1:] == (660, 3)
    assert picture.std() > 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ValidationPlan(num_clips=0), "plan.num_clips: 0"),
        (lambda: ValidationPlan(targets=[]), "plan.targets"),
        (lambda: ValidationPlan(targets=["piano", " "]), "plan.targets"),
        (lambda: ValidationPlan(prompt="a solo"), r"plan.prompt: 'a solo' must contain {} exactly once"),
        (lambda: ValidationPlan(negative_prompt="{} {}"), "plan.negative_prompt"),
        (lambda: ValidationPlan(ap_scale=math.nan), "plan.ap_scale"),
        (lambda: ValidationPlan(time_pooling=0), "plan.time_pooling"),
        (lambda: ValidationPlan(num_inference_steps=0), "plan.num_inference_steps"),
        (lambda: AudioSamples(every_n_validations=0), "every_n_validations: 0"),
        (lambda: AudioSamples(name="../x"), "name: '../x'"),
        (lambda: EditMetrics(name="a b"), "name: 'a b'"),
        (lambda: AdapterEMA(decay=1.0), "decay: 1.0"),
        (lambda: AdapterExport(when="never"), "when: 'never'"),
        (lambda: AdapterExport(filename="a/b.safetensors"), "filename"),
        (lambda: AdapterExport(filename="adapter.bin"), "filename"),
    ],
)
def test_wrong_settings_are_refused_at_construction(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_an_unusable_scheduler_strategy_or_clap_is_refused_before_training(module, tmp_path):
    with pytest.raises(InputError, match=r"plan.scheduler: 'Nonsense'"):
        fit(module, tmp_path, [AudioSamples(ValidationPlan(scheduler="Nonsense"))])
    with pytest.raises(InputError, match=r"plan.time_pooling: 3; choose one of 1, 2, 4, 8: "):
        fit(module, tmp_path, [AudioSamples(ValidationPlan(time_pooling=3))])
    with pytest.raises(InputError, match="sharded weights"):
        AudioSamples().setup(SimpleNamespace(strategy=FSDPStrategy()), module, "fit")
    with pytest.raises(FileNotFoundError, match="clap"):
        fit(module, tmp_path, [EditMetrics(clap="no such folder")])
