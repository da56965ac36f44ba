"""Every config is accepted by its command, and the help and overview name what there is."""

import re
import sys
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace

from apa_lightning.cli.functions import FUNCTIONS
from apa_lightning.cli.main import CLI, main
from apa_lightning.cli.overview import COMMANDS
from apa_lightning.cli.shown_defaults import with_edit_defaults
from apa_lightning.editing.defaults import EditDefaults
from apa_lightning.utils.pretrained import packaged

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml"))


POCKET = [config for config in CONFIGS if config.startswith("configs/pocket/")]


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["apa_lightning"])


def parsed(monkeypatch, *arguments: str) -> Namespace:
    """What the command line would run with; nothing is built."""
    caught: list[Namespace] = []

    def stop(cli: CLI) -> None:
        caught.append(cli.config[cli.config.subcommand])
        raise SystemExit(0)

    monkeypatch.setattr(CLI, "before_instantiate_classes", stop)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0
    return caught[0]


@pytest.mark.parametrize("config", POCKET)
def test_every_pocket_recipe_is_accepted_as_it_is(monkeypatch, config):
    name = Path(config).stem
    commands = dict.fromkeys(("music", "pairs", "held_out", "evaluation"), "render") | {
        "report": "test",
        "proof": "test",
    }
    adapters = dict.fromkeys(("adapter", "timbre"), "configs/base.yaml")
    under = adapters | {"proof": "configs/pocket/report.yaml", "unet_adapted": "configs/pocket/unet.yaml"}
    base = ["--config", under[name]] if name in under else []
    command = commands.get(name, "fit")
    settings = parsed(monkeypatch, command, *base, "--config", config)
    if command == "fit":
        assert settings.trainer.max_steps % settings.trainer.val_check_interval == 0  # the last weights are measured
    if command == "fit" and name not in adapters:
        assert str(settings.model.init_args.folder) == "runs/pocket/model"


@pytest.mark.parametrize("config", [config for config in CONFIGS if config not in POCKET])
def test_every_config_is_accepted(monkeypatch, config):
    edits = config == "configs/predict.yaml" or config.startswith("configs/tasks/")
    base = ["predict", "--config", "configs/predict.yaml"] if edits else ["fit", "--config", "configs/base.yaml"]
    base = ["evaluate"] if config == "configs/evaluate.yaml" else base
    settings = parsed(monkeypatch, *base, "--config", config).as_dict()
    for section in ("model", "data"):
        for key, value in (
            (yaml.safe_load((ROOT / config).read_text()).get(section) or {}).get("init_args") or {}
        ).items():
            if key != "tasks" and not isinstance(value, dict) and "${" not in str(value):
                found = settings[section]["init_args"][key]
                if key == "metrics":
                    found = [{"class_path": one["class_path"]} for one in found]
                assert (str(found) if isinstance(found, Path) else found) == value, key


@pytest.mark.parametrize("command", ["evaluate", "sweep"])
@pytest.mark.parametrize("task", ["timbre", "genre", "accompaniment", "all"])
def test_every_task_is_accepted_by_evaluate(monkeypatch, command, task):
    file = f"configs/tasks/{task}.yaml"
    settings = parsed(monkeypatch, command, "--config", "configs/evaluate.yaml", "--config", file).data.init_args
    written = yaml.safe_load((ROOT / file).read_text())["data"]["init_args"]["tasks"]
    for ours, theirs in zip(settings.as_dict()["tasks"], written, strict=True):
        assert {name: ours[name] for name in theirs} == theirs


def test_print_config_has_the_backbones_defaults(monkeypatch):
    """Of predict for its task, of evaluate for each task; what somebody sets stays, and a file says the same again."""
    stored = EditDefaults(packaged() / "edit_defaults.yaml")
    predict = (
        "predict",
        "--config",
        "configs/predict.yaml",
        "--config",
        "configs/tasks/genre.yaml",
        "--data.time_pooling=4",
    )
    settings = parsed(monkeypatch, *predict)
    shown = with_edit_defaults(settings).data.init_args
    assert settings.data.init_args.ap_scale is None
    assert {name: shown[name] for name in stored.of()} == {**stored.of("genre"), "time_pooling": 4}
    paper = with_edit_defaults(parsed(monkeypatch, *predict, "--config", "configs/tasks/paper.yaml"))
    assert (paper.data.init_args.guidance_scale, paper.data.init_args.ap_scale) == (7.5, 0.4)
    evaluate = "evaluate", "--config", "configs/evaluate.yaml", "--config", "configs/tasks/all.yaml"
    shown = with_edit_defaults(parsed(monkeypatch, *evaluate, "--data.num_inference_steps=20")).data.init_args
    for task in shown.tasks:
        known = stored.of(task["name"])
        others = ("negative_prompt", "num_inference_steps")  # the task's, and the one that was set
        assert task["point"] == {
            name: value for name, value in known.items() if value is not None and name not in others
        }
    assert (shown.ap_scale, shown.num_inference_steps) == (None, 20)
    fit = parsed(monkeypatch, "fit", "--config", "configs/base.yaml")
    assert with_edit_defaults(fit) is fit


def test_overlays_reach_the_interpolations_of_the_base(monkeypatch, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(
        "seed_everything: 7\ntrainer: {default_root_dir: elsewhere, callbacks+: [{class_path: callbacks.Throughput}]}\n"
    )
    settings = parsed(monkeypatch, "fit", "--config", "configs/base.yaml", "--config", str(overlay))
    assert settings.model.init_args.seed == settings.data.init_args.seed == 7
    assert settings.trainer.logger.init_args.save_dir == "elsewhere"
    assert settings.trainer.callbacks[-1].class_path.endswith("Throughput")
    assert (
        len(settings.trainer.callbacks)
        == len(yaml.safe_load((ROOT / "configs/base.yaml").read_text())["trainer"]["callbacks"]) + 1
    )
    settings = parsed(
        monkeypatch, "fit", "--config", "configs/base.yaml", "--seed_everything", "3", "--model.ap_scale", "0.5"
    )
    assert (settings.model.init_args.seed, settings.model.init_args.ap_scale) == (3, 0.5)


def test_the_backbones_overlay_leaves_the_adapter_to_the_user(monkeypatch):
    """Given before or after the overlay, and none in training."""
    predict, large = (
        ["predict", "--config", "configs/predict.yaml"],
        ["--config", "configs/backbone/audioldm2_large.yaml"],
    )
    given = ["--model.adapter", "pytorch_model.bin"]
    for arguments in ([*large, *given], [*given, *large]):
        settings = parsed(monkeypatch, *predict, *arguments).model.init_args
        assert (settings.backbone, settings.adapter) == ("cvssp/audioldm2-large", "pytorch_model.bin")
    assert parsed(monkeypatch, *predict, *large).model.init_args.adapter == "embedded"  # refused, with the way out
    assert parsed(monkeypatch, "fit", "--config", "configs/base.yaml", *large).model.init_args.adapter is None


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["fit", "predict", *FUNCTIONS]),
        (["fit"], ["omega", "alpha", "--data.train_shards", "--model.pooling_rates", "--trainer.max_steps"]),
        (["predict"], ["omega", "alpha", "lambda", "--data.manifest"]),
        (["evaluate"], ["omega", "alpha", "lambda", "--data.systems", "--data.metrics", "--model.pooling_rates"]),
        *[
            ([name], [*function] if isinstance(function, dict) else ["--config"])
            for name, function in FUNCTIONS.items()
        ],
        (["listening-test", "build"], ["--config", "--evaluation"]),
    ],
)
def test_help_names_the_knobs(capsys, command, words):
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert not [word for word in words if word not in text]


def test_the_overview_names_every_command(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = re.findall(r"^    ([a-z-]+)  +\S", capsys.readouterr().out, re.MULTILINE)
    assert listed == [*COMMANDS]


def test_without_a_command_the_message_is_one_line(capsys):
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1


def test_sizes(capsys):
    main(["sizes"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for figure in ("718,012,296", "layers 32", "matrices 64", "21,626,880"):
        assert figure in text
