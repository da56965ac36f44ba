"""Callbacks in real fits of a tiny backbone with a window of 1.28 s."""

import json
import random

import lightning as L
import numpy as np
import pytest
import torch
from fit_tools import PLAN, WINDOW, build, clips, fit, loader
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from random_folders import tiny_backbone, tiny_parts
from safetensors import safe_open
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from apa_lightning.audio import load_audio
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.module import AudioPromptModule
from callbacks.adapter_ema import AdapterEMA
from callbacks.adapter_export import AdapterExport
from callbacks.encoding_cost import EncodingCost, said
from callbacks.monitors import LearningRate, Throughput
from callbacks.validation.audio_samples import AudioSamples
from callbacks.validation.edit_metrics import SYSTEMS, EditMetrics


@pytest.fixture()
def module() -> AudioPromptModule:
    return build()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One fit with TensorBoard and every callback: the folder, the events, what was edited, and the module."""
    folder = tmp_path_factory.mktemp("run")
    module = build()
    edited, states, original = [], [], AudioEditor.edit

    def spy(self, requests, **options):
        edited.append([(request.id, self.filled(request).ap_scale) for request in requests])
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
    assert all(tag.startswith("samples-clip_1") for tag in tags["audio"])
    assert all(tag.startswith("samples/clip_1") for tag in tags["images"])
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


def test_a_run_without_a_cache_says_once_what_one_would_save(module, tmp_path, caplog):
    with caplog.at_level("INFO", "lightning.pytorch"):
        fit(module, tmp_path, [EncodingCost(steps=2)], steps=4, limit_val_batches=0)
    (line,) = [message for message in caplog.messages if message.startswith("encoders:")]
    assert "(measured; prompts not counted)" in line and "configs/data/encoded.yaml" in line and "MB of disk" in line


@pytest.mark.parametrize(
    "read, end",
    [(None, "one window per clip."), (4000, "reads each clip 2 times."), (500, "too seldom for that to pay.")],
)
def test_what_a_cache_saves_is_arithmetic(read, end):
    line = said(0.8, 0.3, 920_000, 2000, read)
    assert "0.3 of the 0.8 s" in line and "1.6x as fast, for about 1.8 GB" in line and line.endswith(end)


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
    layers = module.backbone.adapted_layers()
    assert {scale for layer in layers.values() for scale in layer.processor.scales} == {module.ap_scale}


def test_the_exported_adapter_loads_back_and_holds_the_average(run):
    folder, module, trainer = run[0], run[4], run[5]
    path = folder / "adapter.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert (metadata["step"], metadata["weights"], metadata["ema_updates"]) == ("2", "ema", "2")
    assert metadata["backbone"] == str(tiny_backbone(WINDOW))
    editor = AudioEditor.from_pretrained(adapter=path, **tiny_parts(WINDOW))
    average = next(callback for callback in trainer.callbacks if isinstance(callback, AdapterEMA)).state_dict()[
        "average"
    ]
    assert all(torch.equal(weight, average[name]) for name, weight in editor.adapters[0].named_parameters())
    assert not all(
        torch.equal(*pair) for pair in zip(editor.adapters[0].parameters(), module.adapter.parameters(), strict=True)
    )
    checkpoint = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)
    assert {key.split(".")[0] for key in checkpoint["state_dict"]} == {"adapter"}


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


def test_a_half_precision_backbone_edits_under_the_trainers_precision(tmp_path):
    module = build(half_backbone=True)
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
