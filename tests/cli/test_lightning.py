"""Lightning's own settings, callbacks and loggers on the command line: they work, or one line says why not."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.parsing import lightning_hasattr
from random_folders import tiny_flags

from apa_lightning.cli.main import main
from apa_lightning.cli.messages import mistakes_told
from apa_lightning.module import AudioPromptModule

ROOT = Path(__file__).parents[2]
CALLBACKS, LOGGERS = "lightning.pytorch.callbacks.", "lightning.pytorch.loggers."


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["apa_lightning"])


def run(folder: Path, *arguments: str, callbacks: dict[str, dict] | None = None, command: str = "fit") -> None:
    listed = [{"class_path": name, "init_args": options} for name, options in (callbacks or {}).items()]
    small = ["--config=configs/base.yaml", "--config=tests/small.yaml", *tiny_flags(32), "--data.validation_samples=2"]
    steps = ["--trainer.max_steps=2", "--trainer.val_check_interval=2"] if command == "fit" else []
    quick = ["--trainer.num_sanity_val_steps=0", *steps, f"--trainer.callbacks={json.dumps(listed)}"]
    main([command, *small, *quick, f"--trainer.default_root_dir={folder}", *arguments])


def refused(capsys, *arguments, **options) -> str:
    with pytest.raises(SystemExit) as end:
        run(*arguments, **options)
    message = capsys.readouterr().err.partition("error: ")[2]
    assert end.value.code == 2 and message.count("\n") == 1
    return message


def test_no_step_is_logged_and_stock_callbacks_work(tmp_path):
    """Defaults of their arguments are no plain values: a word of an enumeration, a device, a function or its name."""
    callbacks = {
        f"{CALLBACKS}LearningRateFinder": {
            "num_training_steps": 3,
            "min_lr": 1e-6,
            "max_lr": 1e-5,
            "early_stop_threshold": None,
        },
        f"{CALLBACKS}Timer": {"duration": "00:01:00:00"},
        f"{CALLBACKS}ModelPruning": {"pruning_fn": "l1_unstructured", "amount": 0.0},
        f"{CALLBACKS}StochasticWeightAveraging": {"swa_lrs": 1e-3, "swa_epoch_start": 5},
        f"{CALLBACKS}GradientAccumulationScheduler": {"scheduling": {"0": 1}},
        "callbacks.Throughput": {},
        "callbacks.LastCheckpoint": {},
    }
    run(tmp_path, "--trainer.log_every_n_steps=0", callbacks=callbacks)
    (state,) = (torch.load(path, weights_only=True) for path in tmp_path.glob("**/last.ckpt"))
    assert state["global_step"] == 2


def test_the_learning_rate_that_was_found_is_the_optimizers():
    module = AudioPromptModule()
    module.adapter = torch.nn.Linear(1, 1)
    module.lr = 3e-5
    assert module.configure_optimizers().param_groups[0]["lr"] == 3e-5


def test_barebones_leaves_out_what_the_file_logs_and_saves(tmp_path):
    run(tmp_path, "--trainer.barebones=true", callbacks={"callbacks.LastCheckpoint": {}, "callbacks.Throughput": {}})
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (["--ckpt_path=best"], {}, "--ckpt_path: 'best' means nothing to a new process"),
        (["--ckpt_path=best"], {"command": "validate"}, "Give a .ckpt file, or 'last'"),
        (["--ckpt_path=registry:model"], {}, "--ckpt_path: 'registry:model' means nothing"),
        (["--ckpt_path=hpc"], {"command": "validate"}, "no HPC checkpoint was found"),
        (["--trainer.profiler=magic"], {}, "it can only be one of ['simple', 'advanced', 'pytorch', 'xla']"),
        ([], {"callbacks": {f"{CALLBACKS}EarlyStopping": {"monitor": "loss"}}}, "`loss` which is not available"),
        (
            ["--trainer.logger=false"],
            {"callbacks": {f"{CALLBACKS}DeviceStatsMonitor": {}}},
            "Cannot use `DeviceStatsMonitor`",
        ),
    ],
)
def test_what_lightning_refuses_is_one_line(tmp_path, capsys, arguments, options, words):
    assert words in refused(capsys, tmp_path, *arguments, **options)


@pytest.mark.parametrize(
    ("logger", "package"), [("WandbLogger", "wandb"), ("MLFlowLogger", "mlflow"), ("CometLogger", "comet_ml")]
)
def test_the_package_of_a_logger_is_named(tmp_path, capsys, logger, package):
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    message = refused(capsys, tmp_path, f"--trainer.logger={LOGGERS}{logger}")
    assert f"pip install -U '{package.replace('_', '-')}" in message


def test_the_package_of_one_of_two_loggers_is_named(tmp_path, capsys):
    if find_spec("mlflow"):
        pytest.skip("mlflow is installed")
    loggers = [
        {"class_path": f"{LOGGERS}{name}", "init_args": {"save_dir": str(tmp_path)}}
        for name in ("CSVLogger", "MLFlowLogger")
    ]
    message = refused(capsys, tmp_path, f"--trainer.logger={json.dumps(loggers)}")
    assert "MLFlowLogger: Requirement 'mlflow" in message


def test_an_error_inside_of_lightning_that_it_does_not_raise_itself_stays_a_bug():
    with pytest.raises(AttributeError), mistakes_told():
        lightning_hasattr(3, "lr")  # type: ignore[arg-type]
