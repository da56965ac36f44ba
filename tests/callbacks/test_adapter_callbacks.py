"""The adapter's average and its file, in real fits of a tiny backbone."""

import lightning as L
import pytest
import torch
from fit_tools import Recorder, build, clips, fit, loader
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors import safe_open

from apa_lightning.conditioning.dropout import ConditionDropout
from apa_lightning.errors import InputError
from apa_lightning.module import AudioPromptModule
from callbacks.adapter_ema import AdapterEMA
from callbacks.adapter_export import AdapterExport


@pytest.fixture()
def module() -> AudioPromptModule:
    return build()


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


def test_the_average_resumes_bit_exactly(tmp_path):
    def trained(steps: int, **options) -> AdapterEMA:
        module = build(
            condition_dropout=ConditionDropout(text=0, both=0)
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


def test_validate_uses_the_checkpoints_average(tmp_path):
    module, average = build(), AdapterEMA(decay=0.5)
    module.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=10.0)
    fit(module, tmp_path, [average, ModelCheckpoint(tmp_path, filename="one")], steps=1)
    recorder, fresh = Recorder(), build()
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
