"""``--config pkg:NAME`` names the configurations that come with the package."""

import sys
from pathlib import Path

import pytest

from apa_lightning.cli.main import main
from apa_lightning.cli.packaged_configs import FOLDER, with_packaged_configs

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["apa_lightning"])


def test_every_config_of_the_repository_is_packaged():
    for path in (ROOT / "configs").rglob("*.yaml"):
        name = path.relative_to(ROOT / "configs").as_posix()
        (_, resolved) = with_packaged_configs(["--config", f"pkg:{name}"])
        assert Path(resolved).read_text() == path.read_text()


def test_only_values_of_config_are_resolved():
    given = [
        "predict",
        "-c",
        "pkg:base.yaml",
        "--config=pkg:training/ema.yaml",
        "--config",
        "own.yaml",
        "--x",
        "pkg:base.yaml",
    ]
    base, ema = str(FOLDER / "base.yaml"), str(FOLDER / "training/ema.yaml")
    assert with_packaged_configs(given) == [
        *("predict", "-c", base, f"--config={ema}", "--config", "own.yaml", "--x", "pkg:base.yaml"),
    ]


def test_the_command_line_takes_packaged_files(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "pkg:base.yaml", "--config", "pkg:training/ema.yaml", "--print_config"])
    assert end.value.code == 0
    assert "callbacks.AdapterEMA" in capsys.readouterr().out


def test_an_unknown_name_lists_what_there_is(capsys):
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", "pkg:bass.yaml"])
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("error: --config pkg:bass.yaml: ")
    assert "base.yaml" in message and "training/ema.yaml" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("name", ["../setup.cfg", "/etc/passwd"])
def test_a_packaged_name_does_not_leave_the_folder(capsys, name):
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", f"pkg:{name}"])
    assert end.value.code == 2
    assert "is not a packaged configuration" in capsys.readouterr().err
