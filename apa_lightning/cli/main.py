"""The program ``python -m apa_lightning``: LightningCLI's fit, validate, test and predict, and commands without a Trainer."""

import importlib
import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from apa_lightning.cli.messages import check_config_files, fail, mistakes_told, quiet_libraries, root_message, shortened
from apa_lightning.cli.packaged_configs import with_packaged_configs
from apa_lightning.cli.trainer import Trainer as EvaluatingTrainer
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import atomic_path
from apa_lightning.utils.checkpoints import AtomicCheckpointIO, check_checkpoint, last_checkpoint, run_of
from apa_lightning.utils.pretrained import EMBEDDED

#: Commands that need no Trainer: plain typed functions, named by path because this package imports none of their homes.
#: A mapping is a command with commands of its own.
TOOLS: dict[str, str | dict[str, str]] = {
    "shards": "datamodules.prepare.audioset_shards.make_shards",
    "render": "datamodules.music.render.render",
    "sizes": "apa_lightning.commands.sizes.sizes",
    "adapter": "apa_lightning.commands.adapter.convert",
    "listening-test": {
        "build": "apa_lightning.listening_test.build.build",
        "score": "apa_lightning.listening_test.score.score",
    },
}

# An overlay's values must reach the ${...} of the base file: with this mode interpolation is resolved after merging.
# A configuration names classes of the kind that is asked for; neither values of any kind nor functions are called, and a
# denylist, of whatever length, has jsonargparse refuse what runs commands (os, subprocess, builtins, ...).
set_parsing_settings(
    omegaconf_absolute_to_relative_paths=True, instantiate_subclass_spec_in_any=False, import_path_denylist=[]
)


#: Classes whose knobs ``--help`` lists: those of base.yaml and the edit tasks. Any other is named by ``class_path``.
SHOWN = {
    "fit": {"model": "apa_lightning.AudioPromptModule", "data": "datamodules.AudioSetDataModule"},
    "predict": {"model": "apa_lightning.AudioPromptModule", "data": "datamodules.EditsDataModule"},
}
#: Commands that evaluate: predict with several systems.
EVALUATIONS = ("evaluate", "sweep", "findings")
for _name in EVALUATIONS:
    SHOWN[_name] = {
        "model": "apa_lightning.AudioPromptModule",
        "data": "datamodules.EvaluationDataModule",
    }
#: Callbacks of every training run, whatever its configuration lists; one that it lists keeps its settings.
GUARDS = (
    "callbacks.StopBetweenBatches",
    "callbacks.SkipNonFiniteSteps",
    "callbacks.RunHistory",
)
PROGRAM = "python -m apa_lightning"


class Parser(LightningArgumentParser):
    """LightningArgumentParser with one-line usage and errors, and help that lists the knobs of the usual classes."""

    shown: Mapping[str, str] = {}

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the user's mistake in one message and exit with 2."""
        fail(root_message(ex) or shortened(message))

    def parse_args(self, args: Sequence[str] | None = None, **kwargs: Any) -> Namespace:
        """Parse a command line whose ``--config`` may name packaged files, and check those files first."""
        arguments = with_packaged_configs(sys.argv[1:] if args is None else args)
        check_config_files(arguments)
        return super().parse_args(arguments, **kwargs)

    def format_help(self, *args: Any) -> str:
        knobs = ArgumentParser(add_help=False, usage="")
        for key, path in self.shown.items():
            knobs.add_class_arguments(_import(path), key)
        return super().format_help(*args) + (knobs.format_help().split("\n", 1)[1] if self.shown else "")


class SaveFitConfig(SaveConfigCallback):
    """Keeps the settings of a training run beside it; ``predict`` has them in its results, and no run folder.

    A run that is continued with other settings keeps the earlier ones as ``config-1.yaml`` and so on.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or (folder := trainer.log_dir) is None or not trainer.is_global_zero:
            return
        config = self.config.clone()
        config["ckpt_path"] = None  # where a run was continued stands in history.jsonl
        settings, path = self.parser.dump(config, skip_none=False), Path(folder, self.config_filename)
        with atomic_path(path, sole_writer=True) as temporary:
            temporary.write_text(settings)
            if path.is_file() and path.read_text() != settings:
                earlier = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
                os.replace(path, next(name for name in earlier if not name.exists()))


class CLI(LightningCLI):
    """LightningCLI whose model and data are chosen by ``class_path``, plus the commands of :data:`TOOLS`."""

    _continued: Path | None = None  # the folder of the run that goes on

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**{"parser_mode": "omegaconf+", "description": __doc__, **kwargs})

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        parsers: Any = self._subcommand_parsers
        for name, sub in parsers.items():
            sub.shown = SHOWN.get(name, SHOWN["fit"])
            sub.usage = f"{PROGRAM} {name} --config FILE [--config OVERLAY ...] [--model.KNOB VALUE] [--data.KNOB VALUE] [--trainer.KNOB VALUE]"
        actions: Any = parser._subcommands_action
        for name, tool in TOOLS.items():
            if isinstance(tool, str):
                _add_tool(actions, name, tool)
            else:
                summary = _summary(importlib.import_module(next(iter(tool.values())).rsplit(".", 2)[0]))
                group = Parser(description=summary, parser_mode="omegaconf+")
                actions.add_subcommand(name, group, help=summary)
                nested = group.add_subcommands()
                for command, path in tool.items():
                    _add_tool(nested, command, path)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        # As Lightning's, but with the data first: a mistake in a manifest shows before a large backbone is loaded.
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.add_lightning_class_args(self._datamodule_class, "data", subclass_mode=True, required=False)
        parser.add_lightning_class_args(self._model_class, "model", subclass_mode=True)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        # Edits go to files; keeping them would hold every waveform in memory.
        if "return_predictions" in parser.get_defaults():
            parser.set_defaults({"return_predictions": False})

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return LightningCLI.subcommands() | {name: {"model", "datamodule", "weights_only"} for name in EVALUATIONS}

    def before_instantiate_classes(self) -> None:
        if self.subcommand in EVALUATIONS:
            self._prepare_evaluation(self.config[self.subcommand])
        elif self.subcommand == "fit":
            self._continue_run(self.config.fit)
        if self.subcommand not in (*TOOLS, "fit"):
            self._refuse_hpc(self.config[self.subcommand])

    def _refuse_hpc(self, config: Any) -> None:
        """Under SLURM Lightning would load what a requeued training left behind, over the adapter that was asked for."""
        root = Path(config.trainer.default_root_dir or ".")
        if SLURMEnvironment.detect() and config.get("ckpt_path") is None and any(root.glob("hpc_ckpt_*.ckpt")):
            raise InputError(
                f"trainer.default_root_dir: '{root}' holds a hpc_ckpt_*.ckpt of a requeued training. Give --ckpt_path last "
                "to use it, or another --trainer.default_root_dir."
            )

    def _continue_run(self, config: Any) -> None:
        """``--ckpt_path last`` goes on in the run's own folder, or begins where there is nothing to go on with; so does a
        job that SLURM has requeued, which cannot be given another command."""
        root = Path(config.trainer.default_root_dir or ".")
        requeued = SLURMEnvironment.detect() and any(root.glob("hpc_ckpt_*.ckpt"))
        if config.get("ckpt_path") not in ("last", "hpc") and not (requeued and config.get("ckpt_path") is None):
            return
        try:
            config.ckpt_path = str(checkpoint := last_checkpoint(root))
        except FileNotFoundError as none:
            rank_zero_info(f"{none} Training begins at the first step.")
            config.ckpt_path = None
            return
        self._continued = run_of(checkpoint)

    def _prepare_evaluation(self, config: Any) -> None:
        """base.yaml is of a training run: its callbacks, logger and missing adapter are not what is evaluated."""
        data = config.get("data")
        if data is None or "tasks" not in data.init_args:
            raise InputError(f"{self.subcommand} needs a task, for example --config configs/tasks/timbre.yaml.")
        trainer = config["trainer"]
        trainer.logger = trainer.enable_checkpointing = False
        trainer.callbacks = [
            Namespace(class_path="callbacks.PredictionWriter"),
            Namespace(class_path="callbacks.EvaluationReport", init_args=Namespace(kind=self.subcommand)),
        ]
        model = config["model"].init_args
        if not config.get("ckpt_path") and model.adapter is None:
            if model.backbone != EMBEDDED:
                raise InputError("--model.adapter: is missing; give the adapter file to evaluate, or --ckpt_path.")
            model.adapter = EMBEDDED
        if self.subcommand != "evaluate" and data.init_args.grid is None:
            data.init_args.grid = {
                name: list(values) for name, values in _import("datamodules.evaluation.GRID").items()
            }

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint before anything is built. Its settings are not read: those of the command line count."""
        path = self.config[self.config.subcommand].get("ckpt_path")
        if path and path not in ("last", "best", "hpc", "registry"):
            check_checkpoint(path)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        arguments = super()._prepare_subcommand_kwargs(subcommand)
        if (
            arguments.get("ckpt_path") == "last"
        ):  # of fit see _continue_run; Lightning looks only into the new, empty folder
            arguments["ckpt_path"] = last_checkpoint(self.trainer.default_root_dir)
        arguments["weights_only"] = True  # nothing in a checkpoint is ever executed
        return arguments

    def _set_seed(self) -> None:
        if self.subcommand not in TOOLS:
            super()._set_seed()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError) as error:  # Lightning's words for an unknown accelerator, strategy, ...
            raise InputError(f"trainer: {' '.join(str(error).split())}") from error
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = AtomicCheckpointIO()
        if self.subcommand == "fit":
            logger, run = trainer.logger, self._continued
            if (
                isinstance(logger, TensorBoardLogger)
                and run
                and run.parent.resolve() == Path(logger.root_dir).resolve()
            ):
                logger._version = run.name  # and not in the settings: those are of any run
            callbacks: list = trainer.callbacks  # type: ignore[attr-defined]
            callbacks[:0] = [kind() for path in GUARDS if not _has(callbacks, kind := _import(path))]
        return trainer

    def instantiate_classes(self) -> None:
        if self.subcommand not in TOOLS:
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand not in TOOLS:
            return super()._run_subcommand(subcommand)
        arguments, tool = self.parser.instantiate_classes(self.config)[subcommand].as_dict(), TOOLS[subcommand]
        if not isinstance(tool, str):
            command = arguments["subcommand"]
            arguments, tool = arguments[command], tool[command]
        arguments.pop("config", None)
        _import(tool)(**arguments)


def _has(objects: Sequence[object], kind: type) -> bool:
    return any(isinstance(one, kind) for one in objects)


def _add_tool(actions: Any, name: str, path: str) -> None:
    """Make a typed function a subcommand."""
    function = _import(path)
    tool = Parser(description=_summary(function), parser_mode="omegaconf+")
    tool.add_argument("-c", "--config", action="config", help="Path to a YAML file of these settings.")
    tool.add_function_arguments(function, as_group=False)
    actions.add_subcommand(name, tool, help=_summary(function))


def _summary(documented: Any) -> str:
    return (documented.__doc__ or "").strip().splitlines()[0]


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line ``args``, by default the process's own.

    A user's mistake prints one line and exits with 2; any other exception is a bug and keeps its traceback.
    """
    quiet_libraries()
    with mistakes_told():
        CLI(
            trainer_class=EvaluatingTrainer,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={"prog": PROGRAM},
            save_config_callback=SaveFitConfig,
            save_config_kwargs={"overwrite": True},
            load_from_checkpoint_support=False,
            args=None if args is None else list(args),
        )


def _import(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)
