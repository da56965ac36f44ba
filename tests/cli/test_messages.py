"""The spelling of fields in messages: a bare name in Python, a flag on the command line."""

import errno
from pathlib import Path

import pytest
from jsonargparse import Namespace

from apa_lightning.cli.main import main
from apa_lightning.cli.messages import mistakes_told, remember_flags, remember_typed_flags, shortened, with_flags
from apa_lightning.errors import InputError

FLAGS = {"prompt": "--data.prompt", "output": "--data.output", "tasks": "--data.tasks"}


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("prompt: 5; give a string.", "--data.prompt: 5; give a string."),
        ("tasks.name: 'a b'", "--data.tasks.name: 'a b'"),
        (
            "output: 'x' exists. Choose another `output` folder.",
            "--data.output: 'x' exists. Choose another --data.output folder.",
        ),
        (
            "manifest: 2 problems\n  prompt: None\n  m.csv:2: prompt: 5",
            "manifest: 2 problems\n  --data.prompt: None\n  m.csv:2: prompt: 5",
        ),
        ("prompt.csv:3: seed: 1.5", "prompt.csv:3: seed: 1.5"),
        ("seed: 1.5; `strength` too", "seed: 1.5; `strength` too"),
    ],
)
def test_only_known_fields_become_flags(message, told):
    assert with_flags(message, FLAGS) == told


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError("[gloo/tcp/pair.cc:547] Connection closed by peer [10.77.0.2]:1"),
            "has ended or cannot be reached",
        ),
        (
            RuntimeError("[unbound_buffer.cc:84] Timed out waiting 5000ms for recv operation"),
            "has ended or cannot be reached",
        ),
        (
            RuntimeError("Timed out after 1801 seconds waiting for clients. 1/2 clients joined."),
            "have found each other",
        ),
        (RuntimeError("The client socket has timed out while trying to connect to (a, 1)."), "have found each other"),
        (
            OSError(errno.ENOLCK, "No locks available", "a/b.lock"),
            "a/b.lock: No locks available. Choose a folder on a file",
        ),
    ],
)
def test_what_fails_on_other_machines_is_one_line(error, told, capsys):
    with pytest.raises(SystemExit) as end, mistakes_told():
        raise error
    assert end.value.code == 2 and told in capsys.readouterr().err


TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ("torchrun",),
            "--trainer.num_nodes: torchrun started 4 processes, and 1 machines with 1 devices are set, so that each would train "
            "by itself. Give --trainer.num_nodes 2 --trainer.devices 2 --trainer.strategy ddp.",
        ),
        (
            ("--trainer.num_nodes=2", "--trainer.strategy=ddp"),
            "--trainer.num_nodes: 2, but nothing tells this process of",
        ),
        (("--trainer.strategy=fsdp",), "requires a GPU accelerator"),
        (
            ("--trainer.strategy.class_path=lightning.pytorch.strategies.ModelParallelStrategy",),
            "--trainer.strategy: ModelParallelStrategy divides the weights among processes",
        ),
    ],
)
def test_trainers_that_cannot_work_are_refused_before_anything_is_loaded(flags, told, capsys, monkeypatch, tmp_path):
    for name in ("MASTER_ADDR", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    if flags == ("torchrun",):
        flags = ()
        for name, value in TORCHRUN.items():
            monkeypatch.setenv(name, value)
    root = Path(__file__).parents[2]
    with pytest.raises(SystemExit) as end:
        main(
            [
                "fit",
                f"--config={root}/configs/base.yaml",
                f"--trainer.default_root_dir={tmp_path}",
                "--trainer.accelerator=cpu",
                *flags,
            ]
        )
    assert end.value.code == 2 and told in capsys.readouterr().err


def test_flags_of_the_running_command(capsys):
    data = Namespace(class_path="datamodules.EditsDataModule", init_args=Namespace(prompt="x", sample_rate=None))
    model = Namespace(class_path="apa_lightning.AudioPromptModule", init_args=Namespace(adapter=None, sample_rate=1))
    for message, told in {
        "prompt: missing": "--data.prompt: missing",
        "adapter: missing": "--model.adapter: missing",
        "max_steps: missing": "--trainer.max_steps: missing",
        "sample_rate: 5": "--data.sample_rate: 5",
        "ckpt_path: gone": "--ckpt_path: gone",
        "data: gone": "data: gone",
    }.items():
        with pytest.raises(SystemExit), mistakes_told():
            remember_flags(Namespace(trainer=Namespace(max_steps=1), model=model, data=data, ckpt_path=None))
            raise InputError(message)
        assert capsys.readouterr().err == f"error: {told}\n"


CONFIGS = Path(__file__).parents[2] / "configs"
FIT, PREDICT = (["--config", str(CONFIGS / name)] for name in ("base.yaml", "predict.yaml"))


def test_a_command_line_that_cannot_be_parsed_names_the_typed_flag(capsys):
    for raw, told in {
        "Parser key \"seed\":\n  Expected a <class 'int'>. Got value: x": "--data.seed: x is not a whole number.",
        "Parser key \"trainer.max_steps\":\n  Expected a <class 'int'>": "--trainer.max_steps: Expected a <class 'int'>",
        "Parser key \"match\":\n  Expected a <class 'bool'>. Got value: maybe": "match: maybe is not true or false.",
        "Parser key \"extend\":\n  Expected a <class 'tuple'>": "extend: a list such as [0, 5] is needed",
        "Parser key \"seed\":\n  Does not validate against any of the Union subtypes\n  Errors:\n    - Expected a <class 'float'>\n"
        "    - Expected a <class 'NoneType'>\n  Given value type: <class 'str'>\n  Given value: abc": "--data.seed: abc is not a number.",
        'Parser key "data.ap_scale":\n  Does not validate against any of the Union subtypes\n  Errors:\n'
        "    - Expected a <class 'float'>\n    - Expected a <class 'list'>\n    - Expected a <class 'dict'>\n"
        "    - Expected a <class 'NoneType'>\n  Given value type: <class 'str'>\n"
        "  Given value: much": "--data.ap_scale: much is neither a number, a list nor a mapping.",
        "Option 'colour' is not accepted": "--data.colour: is not a setting",
    }.items():
        with pytest.raises(SystemExit), mistakes_told():
            remember_typed_flags(["predict", "--data.seed", "x", "--data.colour=3"])
            raise InputError(shortened(raw))
        assert capsys.readouterr().err == f"error: {told}\n"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["predict", *PREDICT, "--data.fodler", "x"], "--data.fodler: is not a setting; did you mean --data.folder?"),
        (["predict", "--data.folder", "x"], "--data.folder: is not a setting of this command without a configuration"),
        (
            ["fit", *FIT, "--trainer.max_step", "3"],
            "--trainer.max_step: is not a setting; did you mean --trainer.max_steps?",
        ),
        (["fit", *FIT, "--model.xyzzy", "3"], "--model.xyzzy: is not a setting; --help lists them."),
        (["render", "--cilps", "3"], "--cilps: is not a setting; did you mean --clips?"),
        (
            ["fit", *FIT, "--model.backbone=apa_lightning.AudioLDM2Backbone", "--model.backbone.init_args.folder", "x"],
            "--model.backbone.init_args.folder: is not a setting; --help lists them.",
        ),
        (
            ["fit", *FIT, "--trainer.callbacks+=callbacks.AudioSamples", "--trainer.callbacks.plan.sed", "3"],
            "--trainer.callbacks.plan.sed: is not a setting; did you mean --trainer.callbacks.plan.seed?",
        ),
        (
            ["predict", *PREDICT, "--data.folder=x", "--data.guidance_scale=abc"],
            "--data.guidance_scale: abc is not a number.",
        ),
        (["fit", *FIT, "--data.batch_size", "two"], "--data.batch_size: two is not a whole number."),
    ],
)
def test_a_mistyped_flag_is_told_with_the_nearest_one(args, told, capsys):
    with pytest.raises(SystemExit) as ended:
        main(args)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {told}")
