"""Callbacks in real fits of a tiny backbone with a window of 1.28 s."""

import dataclasses
import json
import math
import random
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader

from apa_lightning.adapter import adapted_layers
from apa_lightning.audio import load_audio
from apa_lightning.conditioning import ConditionDropout, PoolingRates
from apa_lightning.editing import AudioEditor
from apa_lightning.errors import InputError
from apa_lightning.module import AudioPromptModule
from apa_lightning.random_backbone import TINY, save_random_backbone
from callbacks.adapter_ema import AdapterEMA
from callbacks.adapter_export import AdapterExport
from callbacks.audio_samples import AudioSamples
from callbacks.edit_metrics import SYSTEMS, EditMetrics
from callbacks.monitors import LearningRate, Throughput
from callbacks.spectrogram import spectrogram_picture
from callbacks.validation_edits import ValidationEdits
from callbacks.validation_plan import HeldOutClip, ValidationPlan, own_targets

LABELS = ("Piano", "Piano", "Violin, fiddle", "Jazz")
PLAN = ValidationPlan(num_clips=2, num_inference_steps=1)


@pytest.fixture(scope="module")
def small_backbone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("small-backbone")
    save_random_backbone(folder, dataclasses.replace(TINY, unet={**TINY.unet, "sample_size": 32}))
    return folder


def build(folder: Path, **options) -> AudioPromptModule:
    return AudioPromptModule(
        backbone=str(folder), audio_encoder=str(folder / "audio_encoder"), pooling_rates=PoolingRates((2,)), **options
    )


@pytest.fixture()
def module(small_backbone) -> AudioPromptModule:
    return build(small_backbone)


def clips(count: int, window: int, first: int = 0) -> list[dict]:
    time = torch.arange(window) / 16_000
    return [
        {
            "key": f"clip_{i}",
            "waveform": 0.3 * torch.sin(2 * math.pi * 220 * 2 ** (i * 5 / 12) * time),
            "prompt": f"tone {i}",
            "labels": [LABELS[i % len(LABELS)]],
        }
        for i in range(first, first + count)
    ]


def loader(items: list[dict], batch_size: int = 2) -> DataLoader:
    def collate(batch):
        return {
            key: torch.stack([item[key] for item in batch]) if key == "waveform" else [item[key] for item in batch]
            for key in batch[0]
        }

    return DataLoader(items, batch_size=batch_size, collate_fn=collate)


def fit(
    module: AudioPromptModule, folder: Path, callbacks: list, steps: int = 2, ckpt_path=None, **options
) -> L.Trainer:
    window = module.backbone.window_samples
    defaults = {
        "logger": False,
        "val_check_interval": 1,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": 1,
        "num_sanity_val_steps": 0,
    }
    trainer = L.Trainer(
        max_steps=steps,
        default_root_dir=folder,
        accelerator="cpu",
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks),
        **defaults | options,
    )
    trainer.fit(module, loader(clips(2, window)), loader(clips(2, window, first=10)), ckpt_path=ckpt_path)
    return trainer


class Recorder(L.Callback):
    """Notes the adapter's weights after each step and inside each validation."""

    def __init__(self):
        self.trained, self.validated = [], []

    @staticmethod
    def weights(module) -> torch.Tensor:
        return torch.cat([weight.detach().flatten() for weight in module.adapter.parameters()]).clone()

    def on_train_start(self, trainer, pl_module):
        self.trained.append(self.weights(pl_module))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.trained.append(self.weights(pl_module))

    def on_validation_epoch_end(self, trainer, pl_module):
        self.validated.append(self.weights(pl_module))


# --- everything together --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(small_backbone, tmp_path_factory):
    """One fit with TensorBoard and every callback: the folder, the events, what was edited, and the module."""
    folder = tmp_path_factory.mktemp("run")
    module = build(small_backbone)
    edited, states, original = [], [], AudioEditor.edit

    def spy(self, requests, **options):
        edited.append([(request.id, request.ap_scale) for request in requests])
        return original(self, requests, **options)

    class Watch(L.Callback):
        def on_validation_batch_end(self, *_):
            self.before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

        def on_validation_end(self, *_):
            states.append((self.before, (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())))

    patch = pytest.MonkeyPatch()
    patch.setattr(AudioEditor, "edit", spy)
    checkpoint = ModelCheckpoint(monitor="metrics/chroma/edited", mode="max", filename="best")
    callbacks = [
        AudioSamples(PLAN),
        EditMetrics(PLAN),
        AdapterEMA(),
        AdapterExport(),
        LearningRate(),
        Throughput(),
        Watch(),
        checkpoint,
        EarlyStopping("metrics/clap/edited", patience=5),
    ]
    trainer = fit(module, folder, callbacks, logger=TensorBoardLogger(folder, name="board"), num_sanity_val_steps=2)
    patch.undo()
    events = EventAccumulator(
        str(folder / "board" / "version_0"), size_guidance={"audio": 0, "images": 0, "scalars": 0}
    )
    events.Reload()
    return folder / "board" / "version_0", events, edited, states, module, trainer, checkpoint


def test_nothing_is_edited_twice_nor_in_the_sanity_check(run):
    _, _, edited, *_ = run
    first, second = edited  # one call for each of the two validations, shared by both callbacks
    assert len(first) == 4
    assert [scale for _, scale in first] == [0.5, 0.5, 0, 0]
    assert [scale for _, scale in second] == [0.5, 0.5]
    assert [name for name, _ in first[:2]] == [name for name, _ in first[2:]] == [name for name, _ in second]
    assert [name for name, _ in second] == ["clip_10-to-piano", "clip_11-to-violin"]


def test_wav_files_pictures_and_settings_are_left_for_a_person(run):
    folder = run[0]
    steps = sorted(path.name for path in (folder / "samples").iterdir())
    assert steps == ["step-000001", "step-000002"]
    for step in steps:
        lines = [json.loads(line) for line in (folder / "samples" / step / "edits.jsonl").read_text().splitlines()]
        assert len(lines) == 2
        for line in lines:
            for part in ("source", "edited", "text_only"):
                waveform, rate = load_audio(folder / "samples" / step / f"{line['id']}-{part}.wav")
                assert (waveform.shape, rate) == ((1, 20_480), 16_000)
            assert (folder / "samples" / step / f"{line['id']}.png").stat().st_size > 5_000
            assert line["num_inference_steps"] == 1
    source = [load_audio(folder / "samples" / step / f"{lines[0]['id']}-source.wav")[0] for step in steps]
    assert torch.equal(*source)


def test_tensorboard_holds_audio_pictures_scalars_and_the_chart(run):
    events, tags = run[1], run[1].Tags()
    assert len(tags["audio"]) == 6
    assert sorted({tag.rsplit("/", 1)[1] for tag in tags["audio"]}) == ["edited", "source", "text_only"]
    assert all(tag.startswith("samples/clip_1") for tag in tags["audio"] + tags["images"])
    assert len(tags["images"]) == 2
    assert [event.step for event in events.Images(tags["images"][0])] == [1, 2]
    assert {len(events.Audio(tag)) for tag in tags["audio"]} == {1, 2}  # what never changes is there once
    expected = {f"metrics/{kind}/{system}" for kind in ("chroma", "clap") for system in SYSTEMS} | {
        "metrics/skipped",
        "lr-AdamW",
    }
    assert expected <= set(tags["scalars"])
    assert events.Scalars("metrics/chroma/no_op")[-1].value == pytest.approx(1, abs=1e-6)
    assert "custom_scalars__config__" in tags["tensors"]
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0].decode("latin-1")
    assert all(f"metrics/chroma/{system}" in layout for system in SYSTEMS)


def test_throughput_is_logged(run):
    values = {tag: run[1].Scalars(tag)[-1].value for tag in run[1].Tags()["scalars"] if tag.startswith("throughput/")}
    assert values["throughput/clips_per_second"] == pytest.approx(2 * values["throughput/steps_per_second"], rel=1e-4)
    assert values["throughput/audio_hours_per_hour"] == pytest.approx(
        1.28 * values["throughput/clips_per_second"], rel=1e-4
    )
    assert 0 <= values["throughput/data_wait"] < 1


def test_metrics_can_be_monitored(run):
    checkpoint = run[6]
    assert checkpoint.best_model_path.endswith("best.ckpt")
    assert checkpoint.best_model_score == pytest.approx(
        max(event.value for event in run[1].Scalars("metrics/chroma/edited"))
    )


def test_validation_edits_leave_global_randomness_and_the_training_scale_alone(run):
    states, module = run[3], run[4]
    assert len(states) == 3  # the sanity check and two validations
    for before, after in states:
        assert torch.equal(before[0], after[0])
        assert (before[1] == after[1]).all()
        assert before[2] == after[2]
    layers = adapted_layers(module.backbone.unet, module.backbone.stream_width)
    assert {scale for layer in layers.values() for scale in layer.processor.attention.scale} == {module.ap_scale}


def test_the_exported_adapter_loads_back_and_holds_the_average(run, small_backbone):
    folder, module, trainer = run[0], run[4], run[5]
    path = folder / "adapter.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert (metadata["step"], metadata["weights"], metadata["ema_updates"]) == ("2", "ema", "2")
    assert metadata["backbone"] == str(small_backbone)
    editor = AudioEditor.from_pretrained(small_backbone, path, small_backbone / "audio_encoder")
    average = next(callback for callback in trainer.callbacks if isinstance(callback, AdapterEMA)).state_dict()[
        "average"
    ]
    assert all(torch.equal(weight, average[name]) for name, weight in editor.adapters[0].named_parameters())
    assert not all(
        torch.equal(*pair) for pair in zip(editor.adapters[0].parameters(), module.adapter.parameters(), strict=True)
    )
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"adapter"}


# --- loggers, sanity check, development runs ------------------------------------------------------------------------


@pytest.mark.parametrize("logger", [False, CSVLogger])
def test_works_without_tensorboard(module, tmp_path, logger):
    callbacks = [AudioSamples(PLAN), EditMetrics(PLAN), AdapterExport(), LearningRate(), Throughput()]
    trainer = fit(module, tmp_path, callbacks, steps=1, logger=logger and logger(tmp_path, name="csv"))
    folder = tmp_path / "csv" / "version_0" if logger else tmp_path
    assert (folder / "adapter.safetensors").is_file()
    assert len(list((folder / "samples" / "step-000001").glob("*.wav"))) == 6
    assert trainer.callback_metrics["metrics/chroma/no_op"] == pytest.approx(1, abs=1e-6)
    if logger:
        assert "metrics/clap/shuffled" in (folder / "metrics.csv").read_text().splitlines()[0]


def test_a_fast_development_run_edits_but_leaves_no_file(module, tmp_path):
    callbacks = [
        AudioSamples(PLAN),
        EditMetrics(PLAN),
        AdapterExport("checkpoint"),
        AdapterEMA(),
        LearningRate(),
        Throughput(),
    ]
    trainer = fit(
        module, tmp_path, callbacks, logger=TensorBoardLogger(tmp_path), val_check_interval=None, fast_dev_run=True
    )
    assert "metrics/chroma/edited" in trainer.callback_metrics
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_the_sanity_check_edits_when_asked(module, tmp_path):
    fit(module, tmp_path, [AudioSamples(PLAN, during_sanity_check=True)], steps=1, num_sanity_val_steps=1)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step-000000", "step-000001"]


def test_every_n_validations_counts_across_a_resume(module, tmp_path):
    callbacks = lambda: [
        AudioSamples(PLAN, every_n_validations=2),
        ModelCheckpoint(tmp_path, filename="last", save_last=True),
    ]
    fit(module, tmp_path, callbacks(), steps=2)
    fit(module, tmp_path, callbacks(), steps=4, ckpt_path=tmp_path / "last.ckpt")
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step-000001", "step-000003"]


def test_validate_alone_makes_samples_but_no_adapter_file(module, tmp_path):
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[AudioSamples(PLAN), AdapterExport(), AdapterEMA()],
    )
    trainer.validate(module, loader(clips(2, module.backbone.window_samples)), verbose=False)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["step-000000"]
    assert not (tmp_path / "adapter.safetensors").exists()


def test_a_half_precision_backbone_edits_under_the_trainers_precision(small_backbone, tmp_path):
    module = build(small_backbone, half_backbone=True)
    trainer = fit(module, tmp_path, [EditMetrics(PLAN)], steps=1, precision="bf16-mixed")
    assert torch.isfinite(trainer.callback_metrics["metrics/clap/edited"])


def test_two_processes_with_uneven_clips(module, tmp_path):
    """Rank 1 has no usable clip at all; both still meet in every sync and log the same figures."""
    window = module.backbone.window_samples
    silent = [{**clip, "waveform": torch.zeros(window)} for clip in clips(4, window)]
    interleaved = [clip for pair in zip(clips(2, window), silent, strict=False) for clip in pair]
    trainer = L.Trainer(
        max_steps=1,
        default_root_dir=tmp_path,
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        val_check_interval=1,
        num_sanity_val_steps=0,
        callbacks=[
            AudioSamples(PLAN),
            EditMetrics(PLAN),
            AdapterEMA(),
            AdapterExport(),
            Throughput(),
            ModelCheckpoint(tmp_path, monitor="metrics/chroma/edited"),
        ],
    )
    trainer.fit(module, loader(clips(4, window)), loader(interleaved, batch_size=1))
    assert trainer.callback_metrics["metrics/chroma/no_op"] == pytest.approx(1, abs=1e-6)
    assert len(list((tmp_path / "samples" / "step-000001").glob("*.wav"))) == 6
    assert (tmp_path / "adapter.safetensors").is_file()


# --- what is edited -------------------------------------------------------------------------------------------------


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


# --- average and export ---------------------------------------------------------------------------------------------


def test_the_average_equals_its_closed_form_and_stands_in_for_validation(module, tmp_path):
    recorder, average = Recorder(), AdapterEMA(decay=0.5)
    module.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=10.0)
    fit(module, tmp_path, [average, recorder], steps=3)
    decays = [2 / 11, 3 / 12, 4 / 13]
    expected = recorder.trained[0]
    for weights, decay, validated in zip(recorder.trained[1:], decays, recorder.validated, strict=True):
        expected = decay * expected + (1 - decay) * weights
        torch.testing.assert_close(validated, expected)
        assert not torch.equal(validated, weights)
    assert torch.equal(Recorder.weights(module), recorder.trained[-1])  # training goes on with its own weights
    assert average.decay_at(10_000) == 0.5
    assert AdapterEMA(0.9, warmup=False).decay_at(1) == 0.9


def test_accumulated_batches_count_as_one_update(module, tmp_path):
    average = AdapterEMA()
    fit(module, tmp_path, [average], steps=2, accumulate_grad_batches=2, val_check_interval=2)
    assert average.updates == 2


def test_the_average_resumes_bit_exactly(small_backbone, tmp_path):
    def trained(steps: int, **options) -> AdapterEMA:
        module = build(
            small_backbone, condition_dropout=ConditionDropout(text=0, both=0)
        )  # prompts are then encoded in the same groups
        average = AdapterEMA(decay=0.9)
        fit(module, tmp_path, [average, ModelCheckpoint(tmp_path, filename=f"{steps}")], steps=steps, **options)
        return average

    whole = trained(4)
    trained(2)
    resumed = trained(4, ckpt_path=tmp_path / "2.ckpt")
    assert resumed.updates == whole.updates == 4
    assert all(
        torch.equal(resumed.state_dict()["average"][name], value)
        for name, value in whole.state_dict()["average"].items()
    )


def test_a_checkpoint_in_the_middle_of_a_validation_holds_the_trained_weights(module, tmp_path):
    recorder, average = Recorder(), AdapterEMA(decay=0.5)

    class Interrupt(L.Callback):
        def on_validation_batch_start(self, trainer, *_):
            if trainer.global_step == 1:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    module.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=10.0)
    fit(module, tmp_path, [average, recorder, Interrupt()], steps=1)
    saved = torch.load(tmp_path / "middle.ckpt", weights_only=True)
    assert torch.equal(torch.cat([value.flatten() for value in saved["state_dict"].values()]), recorder.trained[-1])


def test_validate_uses_the_checkpoints_average(small_backbone, tmp_path):
    module, average = build(small_backbone), AdapterEMA(decay=0.5)
    module.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=10.0)
    fit(module, tmp_path, [average, ModelCheckpoint(tmp_path, filename="one")], steps=1)
    recorder, fresh = Recorder(), build(small_backbone)
    trainer = L.Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[AdapterEMA(), recorder],
    )
    trainer.validate(
        fresh, loader(clips(2, fresh.backbone.window_samples)), ckpt_path=tmp_path / "one.ckpt", verbose=False
    )
    assert torch.equal(
        recorder.validated[0], torch.cat([value.flatten() for value in average.state_dict()["average"].values()])
    )
    assert torch.equal(Recorder.weights(fresh), Recorder.weights(module))


def test_the_average_of_another_adapter_is_refused(module):
    average = AdapterEMA()
    average.load_state_dict({"updates": 1, "average": {"other.weight": torch.zeros(1)}})
    with pytest.raises(InputError, match="another adapter"):
        average.on_validation_start(None, module)


@pytest.mark.parametrize(("when", "files"), [("fit_end", [2]), ("validation", [1, 2]), ("checkpoint", [1, 2])])
def test_when_the_adapter_is_written(module, tmp_path, when, files):
    callbacks = [AdapterExport(when, "adapter-{step}.safetensors", str(tmp_path / "out"))]
    fit(module, tmp_path, [*callbacks, ModelCheckpoint(tmp_path, every_n_train_steps=1)], steps=2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"adapter-{step:06d}.safetensors" for step in files
    ]
    with safe_open(tmp_path / "out" / "adapter-000002.safetensors", "pt") as file:
        assert file.metadata()["weights"] == "trained"


def test_a_diverged_adapter_does_not_replace_a_good_file(module, tmp_path):
    export = AdapterExport()
    fit(module, tmp_path, [export], steps=1)
    good = (tmp_path / "adapter.safetensors").read_bytes()
    next(module.adapter.parameters()).data.fill_(float("nan"))
    with pytest.warns(UserWarning, match="NaN"):
        assert export.export(module.trainer, module) is None
    assert (tmp_path / "adapter.safetensors").read_bytes() == good


# --- pictures and settings ------------------------------------------------------------------------------------------


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
        (lambda: ValidationPlan(time_pooling=3), "plan.time_pooling"),
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


def test_an_unusable_scheduler_or_clap_is_refused_before_training(module, tmp_path):
    with pytest.raises(InputError, match="scheduler: 'Nonsense'"):
        fit(module, tmp_path, [AudioSamples(ValidationPlan(scheduler="Nonsense"))])
    with pytest.raises(FileNotFoundError, match="clap"):
        fit(module, tmp_path, [EditMetrics(clap="no such folder")])
