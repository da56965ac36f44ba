"""The program ``python -m apa_lightning``: LightningCLI's fit, validate, test and predict, and commands without a Trainer."""

import errno
import importlib
import logging
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from apa_lightning.errors import InputError

#: Commands that need no Trainer: plain typed functions, named by path because this package imports none of their homes.
TOOLS = {
    "shards": "datamodules.audioset_shards.make_shards",
    "render": "datamodules.music.render.render",
    "sizes": "apa_lightning.sizes.sizes",
    "adapter": "apa_lightning.adapter_files.convert",
}

# An overlay's values must reach the ${...} of the base file: with this mode interpolation is resolved after merging.
set_parsing_settings(omegaconf_absolute_to_relative_paths=True)


class CLI(LightningCLI):
    """LightningCLI whose model and data are chosen by ``class_path``, plus the commands of :data:`TOOLS`."""

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        for name, path in TOOLS.items():
            function = _import(path)
            summary = (function.__doc__ or "").strip().splitlines()[0]
            tool = ArgumentParser(description=summary, parser_mode="omegaconf+")
            tool.add_argument("-c", "--config", action="config", help="Path to a YAML file of these settings.")
            tool.add_function_arguments(function, as_group=False)
            parser._subcommands_action.add_subcommand(name, tool, help=summary)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        # Editing results go to files; keeping them would hold every waveform in memory.
        if "return_predictions" in parser.get_defaults():
            parser.set_defaults({"return_predictions": False})

    def instantiate_classes(self) -> None:
        if self.subcommand not in TOOLS:
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand not in TOOLS:
            return super()._run_subcommand(subcommand)
        arguments = self.parser.instantiate_classes(self.config)[subcommand].as_dict()
        arguments.pop("config", None)
        _import(TOOLS[subcommand])(**arguments)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line ``args``, by default the process's own.

    A user's mistake prints one line and exits with 2; any other exception is a bug and keeps its traceback.
    """
    _quiet_libraries()
    try:
        CLI(
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            parser_kwargs={"parser_mode": "omegaconf+", **{
                name: {"parser_mode": "omegaconf+"} for name in ("fit", "validate", "test", "predict")}},
            save_config_kwargs={"overwrite": True},
            load_from_checkpoint_support=False,
            args=None if args is None else list(args),
        )
    except (InputError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        sys.exit(_fail(str(error)))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
            raise
        sys.exit(_fail(f"{error.filename or 'output'}: {error.strerror}. Free space or choose another folder."))
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _import(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def _quiet_libraries() -> None:
    """Leave to the screen what a user can act on."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    for pattern in (
        ".*does not have many workers.*",  # a choice, documented in base.yaml
        ".*deprecated.*diffusers.*",
    ):
        warnings.filterwarnings("ignore", pattern)
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers")
