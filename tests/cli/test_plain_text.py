"""Any text is a prompt or a path: on the command line, in a file of settings, and in what is written of them."""

import pytest
import yaml
from lightning.pytorch import LightningDataModule

from apa_lightning.cli.parser import Parser
from apa_lightning.utils.lightning_compat import no_settings_files

TEXTS = (
    *(
        "style: reggae",
        "- violin",
        "[violin]",
        "[mix] song",
        "{a: b}",
        "? why",
        "#1 hit",
        "'quoted'",
        '"quoted"',
        "a\nb: c",
    ),
    *(
        "123",
        "007",
        "0x10",
        "1e5",
        "1_000",
        "1:30",
        "0.50",
        "+1",
        "true",
        "Yes",
        "on",
        "2024-01-01",
        "=",
        "<<",
        "a=b",
        "-",
    ),
    *(
        " leading",
        "trailing ",
        "\t",
        "",
        "&a",
        "*a",
        "!!int x",
        "%",
        "@x",
        "`x`",
        "|",
        ">",
        "---",
        "x # y",
        "\u2028",
        "\U0001f3b5",
    ),
)


@pytest.fixture(scope="module")
def parser() -> Parser:
    """The settings of predict's data, a class named by ``class_path``, and a path of its own."""
    made = Parser(parser_mode="omegaconf+", exit_on_error=False)
    made.add_argument("--config", action="config")
    made.add_argument("--ckpt_path", type=str | None)
    made.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
    no_settings_files(made)
    return made


@pytest.mark.parametrize("text", [*TEXTS, "--loud"])
def test_text_on_the_command_line(parser, text):
    flags = [f"--data.{name}={text}" for name in ("prompt", "negative_prompt", "folder", "output")]
    settings = parser.parse_args(["--data=datamodules.EditsDataModule", *flags, f"--ckpt_path={text}"])
    data = settings.data.init_args
    assert {data.prompt, data.negative_prompt, data.folder, data.output, settings.ckpt_path} == {text}


@pytest.mark.parametrize("text", [*TEXTS, "null", "~"])
def test_quoted_text_in_a_file_and_in_the_saved_settings(parser, text, tmp_path):
    arguments = {"prompt": text, "negative_prompt": text, "output": text}
    file = tmp_path / "settings.yaml"
    settings: dict = {"data": {"class_path": "datamodules.EditsDataModule", "init_args": arguments}}
    for _ in range(2):
        file.write_text(yaml.safe_dump(settings, allow_unicode=True) if isinstance(settings, dict) else settings)
        read = parser.parse_args([f"--config={file}"])
        assert {name: read.data.init_args[name] for name in arguments} == arguments
        settings = parser.dump(read)


@pytest.mark.parametrize(
    "text", ["123", "007", "0x10", "1e5", "1:30", "0.50", "true", "Yes", "on", "=", "2024-01-01", "1.0e+5"]
)
def test_text_without_quotes_in_a_file(parser, text, tmp_path):
    (tmp_path / "x.yaml").write_text(
        f"data: {{class_path: datamodules.EditsDataModule, init_args: {{prompt: {text}}}}}"
    )
    assert parser.parse_args([f"--config={tmp_path / 'x.yaml'}"]).data.init_args.prompt == text


def test_null_is_not_a_path_but_a_prompt(parser):
    settings = parser.parse_args(
        ["--data=datamodules.EditsDataModule", "--data.folder=null", "--data.prompt=null", "--ckpt_path=null"]
    )
    assert (settings.data.init_args.folder, settings.data.init_args.prompt, settings.ckpt_path) == (None, "null", None)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--data.seed=0x10", 16),
        ("--data.recursive=yes", True),
        ("--data.guidance_scale=1e1", 10.0),
        ("--data.region=[0.50, 2]", (0.5, 2.0)),
        ("--data.region=[[0.50, 2], [3, 4]]", [(0.5, 2.0), (3.0, 4.0)]),
        ("--data.extend=[0, 2.50]", (0.0, 2.5)),
        ("--data.ap_scale=[{up: 0.50, down: 1e-1}]", [{"up": 0.5, "down": 0.1}]),
        ("--data.freq_pooling=null", None),
    ],
)
def test_settings_of_other_types_read_text_as_before(parser, flag, value, tmp_path):
    name, _, text = flag.removeprefix("--data.").partition("=")
    typed = parser.parse_args(["--data=datamodules.EditsDataModule", flag]).data.init_args
    (tmp_path / "x.yaml").write_text(
        f"data: {{class_path: datamodules.EditsDataModule, init_args: {{{name}: {text}}}}}"
    )
    written = parser.parse_args([f"--config={tmp_path / 'x.yaml'}"]).data.init_args
    assert typed[name] == written[name] == value and type(typed[name]) is type(value)


def test_a_value_that_starts_with_a_dash(parser, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--data=datamodules.EditsDataModule", "--data.prompt", "--loud"])
    assert "write one that starts with a dash as --option=VALUE" in capsys.readouterr().err
