"""The argument parser: errors in one line, and help that lists the settings of the usual classes."""

import sys
from collections.abc import Mapping
from inspect import isfunction
from pkgutil import resolve_name
from typing import Any, ClassVar, NoReturn

import torch
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

from apa_lightning.cli.messages import (
    as_typed,
    check_config_files,
    fail,
    remember_typed_flags,
    root_message,
    shortened,
    with_whole_flags,
)
from apa_lightning.cli.packaged_configs import with_packaged_configs
from apa_lightning.cli.plain_text import read_plain_text
from apa_lightning.cli.shown_defaults import with_edit_defaults
from apa_lightning.cli.suggestions import command_of, with_suggestion
from apa_lightning.errors import InputError

# An overlay's values must reach the ${...} of the base file: with this mode, interpolations are resolved after merging.
# A configuration names classes of the kind that is asked for. Neither values of any kind nor functions are called, and a
# denylist, of whatever length, makes jsonargparse refuse what runs commands (os, subprocess, builtins, ...).
# The docstring below a dataclass's field is its help.
set_parsing_settings(
    omegaconf_absolute_to_relative_paths=True,
    instantiate_subclass_spec_in_any=False,
    import_path_denylist=[],
    docstring_parse_attribute_docstrings=True,
)
read_plain_text()
register_type(torch.device, str, torch.device)


class Parser(LightningArgumentParser):
    """LightningArgumentParser with one-line errors, and help that lists the settings of the usual classes.

    Attributes:
        shown: The classes by the key of their settings, for example ``model``.
        running: The parser of the command that is running; jsonargparse reads the settings of a class by a parser of their own.
    """

    shown: Mapping[str, type] = {}
    running: ClassVar[Any] = None

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self.allow_abbrev = False  # --trainer.max_step is a mistake, not --trainer.max_steps

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the user's mistake in one message and exit with 2."""
        told = with_suggestion(as_typed(shortened(message)), Parser.running or self)
        fail(root_message(ex) or with_whole_flags(told))

    def parse_args(self, args: Any = None, *more: Any, **options: Any) -> Any:
        """Parse a command line whose ``--config`` may name packaged files, and check those files first."""
        arguments = with_packaged_configs(sys.argv[1:] if args is None else args)
        remember_typed_flags(arguments)
        Parser.running = command_of(self, arguments)
        check_config_files(arguments)
        return super().parse_args(arguments, *more, **options)

    def dump(self, cfg: Namespace, *args: Any, **options: Any) -> str:
        """Write settings as YAML, with the backbone's defaults for edits."""
        return super().dump(with_edit_defaults(cfg), *args, **options)

    def format_help(self, *args: Any) -> str:
        """Add the settings of the shown classes, which the parser itself lists only where ``class_path`` is given."""
        help_text = super().format_help(*args)
        return help_text + self.class_settings().format_help().split("\n", 1)[1] if self.shown else help_text

    def class_settings(self) -> ArgumentParser:
        """A parser of the settings of the shown classes."""
        settings = ArgumentParser(add_help=False, usage="")
        for key, cls in self.shown.items():
            settings.add_class_arguments(cls, key)
        return settings


def refuse_functions(settings: object, key: str = "") -> None:
    """Raise :class:`InputError` where a configuration names a function: only classes are built from a configuration."""
    if isinstance(settings, Namespace):
        for name, value in vars(settings).items():
            refuse_functions(value, f"{key}.{name}" if key else name)
    elif isinstance(settings, list):
        for value in settings:
            refuse_functions(value, key)
    else:
        named = resolve_name(settings) if isinstance(settings, str) and key.endswith("class_path") else settings
        if isfunction(named) and named.__module__ != "apa_lightning.module":
            raise InputError(
                f"{key}: {named.__module__}.{named.__qualname__} is a function; give the class_path of a class."
            )
