"""The commands that need no Trainer: typed functions, whose arguments are the command's settings."""

from collections.abc import Callable, Mapping
from typing import Any

from apa_lightning import listening_test
from apa_lightning.cli.evaluate import evaluate, findings, sweep
from apa_lightning.cli.parser import Parser
from apa_lightning.commands.adapter import convert
from apa_lightning.commands.publish import publish
from apa_lightning.commands.sizes import sizes
from apa_lightning.listening_test.build import build
from apa_lightning.listening_test.score import score
from apa_lightning.module import AudioPromptModule
from apa_lightning.studio.command import studio
from apa_lightning.utils.lightning_compat import no_settings_files
from datamodules.evaluation import EvaluationSet
from datamodules.music.render import render
from datamodules.prepare.audioset_shards import make_shards

Function = Callable[..., object]

#: A mapping is a command with commands of its own.
FUNCTIONS: dict[str, Function | dict[str, Function]] = {
    "evaluate": evaluate,
    "sweep": sweep,
    "findings": findings,
    "shards": make_shards,
    "render": render,
    "sizes": sizes,
    "adapter": convert,
    "publish": publish,
    "studio": studio,
    "listening-test": {"build": build, "score": score},
}
#: Classes whose settings ``--help`` lists, by function and argument.
SHOWN: dict[Function, dict[str, type]] = {
    command: {"model": AudioPromptModule, "data": EvaluationSet} for command in (evaluate, sweep)
}


def add_functions(subcommands: Any, functions: Mapping[str, Function | dict[str, Function]] = FUNCTIONS) -> None:
    """Add the functions to jsonargparse's action for subcommands."""
    for name, function in functions.items():
        if isinstance(function, dict):
            summary = _summary(listening_test)
            group = Parser(description=summary, parser_mode="omegaconf+")
            subcommands.add_subcommand(name, group, help=summary)
            add_functions(group.add_subcommands(), function)
            continue
        parser = Parser(description=_summary(function), parser_mode="omegaconf+")
        parser.add_argument("-c", "--config", action="config", help="Path to a YAML file of these settings.")
        parser.add_function_arguments(function, as_group=False)
        no_settings_files(parser)
        parser.shown = SHOWN.get(function, {})
        subcommands.add_subcommand(name, parser, help=_summary(function))


def run_function(name: str, settings: dict[str, Any]) -> None:
    """Call the function of the command ``name`` with its settings."""
    function = FUNCTIONS[name]
    if isinstance(function, dict):
        command = settings["subcommand"]
        function, settings = function[command], settings[command]
    function(**{key: value for key, value in settings.items() if key != "config"})


def _summary(documented: Any) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]
