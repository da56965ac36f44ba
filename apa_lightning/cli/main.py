"""The program ``python -m apa_lightning``: LightningCLI's fit, validate, test and predict, and commands without a Trainer."""

import os
from argparse import SUPPRESS
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, LearningRateMonitor, ModelSummary, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

import callbacks
import datamodules
from apa_lightning import AudioPromptModule
from apa_lightning.cli.functions import FUNCTIONS, add_functions, run_function
from apa_lightning.cli.messages import mistakes_told, quiet_libraries, remember_flags
from apa_lightning.cli.overview import PROGRAM
from apa_lightning.cli.parser import Parser, refuse_functions
from apa_lightning.cli.run_folder import SaveFitConfig, refuse_requeued, resume
from apa_lightning.errors import InputError
from apa_lightning.utils.checkpoints import AtomicCheckpointIO, check_checkpoint, last_checkpoint
from apa_lightning.utils.lightning_compat import CommandLine, continue_log_folder, no_settings_files, use_checkpoint_io

#: Classes whose settings ``--help`` lists: those of base.yaml and the edit tasks. Others are named by ``class_path``.
MODEL = AudioPromptModule
DATA = {"predict": datamodules.EditsDataModule}
#: Callbacks of every training run, whatever its configuration lists; one that it lists keeps its settings.
GUARDS: tuple[type[Callback], ...] = (
    callbacks.StopBetweenBatches,
    callbacks.SkipNonFiniteSteps,
    callbacks.RunHistory,
    callbacks.EncodingCost,
)
#: What a barebones Trainer refuses.
NOT_BAREBONES = (
    *("logger", "log_every_n_steps", "enable_checkpointing", "num_sanity_val_steps"),
    *("enable_progress_bar", "enable_model_summary"),
)


class CLI(CommandLine):
    """LightningCLI whose model and data are chosen by ``class_path``, plus the commands without a Trainer."""

    _resumed: Path | None = None  # the folder of the run that is resumed

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**{"parser_mode": "omegaconf+", "description": __doc__, **kwargs})

    def add_functions(self, subcommands: Any) -> None:
        parsers: dict[str, Any] = self.trainer_parsers
        for name, parser in parsers.items():
            parser.shown = {"model": MODEL, "data": DATA.get(name, datamodules.AudioSetDataModule)}
            parser.usage = (
                f"{PROGRAM} {name} --config FILE [--config OVERLAY ...] "
                "[--model.KNOB VALUE] [--data.KNOB VALUE] [--trainer.KNOB VALUE]"
            )
            about = "Validate before the first training step." if name == "fit" else SUPPRESS
            parser.add_argument("--initial_validation", type=bool, default=False, help=about)
            if name == "predict":
                about = "Make only this part of the edits, such as 3/16: short for --data.part."
                parser.add_argument("--part", type=str | None, default=None, help=about)
        add_functions(subcommands)

    def function(self, name: str) -> Callable[[dict[str, Any]], None] | None:
        return partial(run_function, name) if name in FUNCTIONS else None

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        # As Lightning's, but with the data first: a mistake in a manifest shows before a large backbone is loaded.
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True, required=False)
        parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
        no_settings_files(parser)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        # Edits go to files; keeping them would hold every waveform in memory.
        if "return_predictions" in parser.get_defaults():
            parser.set_defaults({"return_predictions": False})

    def check_ckpt_path(self, path: str) -> None:
        if path == "best" or path.startswith("registry"):
            raise InputError(f"ckpt_path: {path!r} means nothing to a new process. Give a .ckpt file, or 'last'.")
        if path not in ("last", "hpc"):
            check_checkpoint(path)

    def before_instantiate_classes(self) -> None:
        command = str(self.subcommand)
        remember_flags(self.config[command])
        refuse_functions(self.config[command])
        if command in FUNCTIONS:
            return
        config = self.config[command]
        if command == "fit":
            self._resumed = resume(config)
        else:
            refuse_requeued(config)
            if config.get("part") is not None and config.get("data"):
                config.data.init_args.part = config.part

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        config = self.config_init[str(self.subcommand)]
        settings = config.trainer
        listed = settings.callbacks or []
        listed = listed if isinstance(listed, list) else [listed]
        if settings.barebones:  # the raw speed of a configuration that logs and saves
            kwargs |= dict.fromkeys(NOT_BAREBONES)
            listed = [
                one
                for one in listed
                if not isinstance(one, Checkpoint | ProgressBar | ModelSummary | LearningRateMonitor)
            ]

        def is_listed(kind: type[Callback]) -> bool:
            return any(isinstance(callback, kind) for callback in listed)

        fitting = self.subcommand == "fit"
        guards = [guard() for guard in GUARDS if fitting and not is_listed(guard)]
        if fitting and not is_listed(callbacks.SameRun):
            guards.append(callbacks.SameRun(config.ckpt_path))
        validates = fitting and config.initial_validation and not settings.barebones
        added: list[Callback] = []
        if validates and not is_listed(callbacks.InitialValidation):
            added.append(callbacks.InitialValidation())
        if settings.enable_progress_bar is not False and not settings.barebones and not is_listed(ProgressBar):
            added.append(callbacks.StepProgress())
        if settings.enable_model_summary is not False and not settings.barebones and not is_listed(ModelSummary):
            added.append(callbacks.ParameterTable())
        kwargs["callbacks"] = guards + listed + added
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError) as error:  # Lightning's words for an unknown accelerator, strategy, ...
            raise InputError(f"trainer: {' '.join(str(error).split())}") from error
        if fitting:
            refuse_lone_processes(trainer)
            refuse_sharding(trainer)
        use_checkpoint_io(trainer, AtomicCheckpointIO())
        if self._resumed:
            continue_log_folder(trainer, self._resumed)
        return trainer

    def trainer_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        # Of fit see resume(); Lightning looks only into the new, empty folder.
        if arguments.get("ckpt_path") == "last":
            arguments["ckpt_path"] = last_checkpoint(self.trainer.default_root_dir)
        return arguments | {"weights_only": True}  # nothing in a checkpoint is ever executed


def refuse_lone_processes(trainer: Trainer) -> None:
    """Refuse a training whose processes would not find each other: each would train by itself, or wait half an hour.

    Raises:
        InputError: If more processes were started than the Trainer counts, or nothing tells several machines of each other.
    """
    launcher, started, each = "torchrun", "WORLD_SIZE", "LOCAL_WORLD_SIZE"
    if not TorchElasticEnvironment.detect():
        launcher, started, each = "srun", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS_PER_NODE"
    known = TorchElasticEnvironment.detect() or SLURMEnvironment.detect()
    processes = int(os.environ.get(started, trainer.world_size)) if known else trainer.world_size
    if processes != trainer.world_size:
        devices = int(os.environ.get(each, processes))
        raise InputError(
            f"num_nodes: {launcher} started {processes} processes, and {trainer.num_nodes} machines with {trainer.num_devices} "
            f"devices are set, so that each would train by itself. Give --trainer.num_nodes {processes // devices} "
            f"--trainer.devices {devices} --trainer.strategy ddp."
        )
    environment = getattr(trainer.strategy, "cluster_environment", None)
    told = {"MASTER_ADDR", "NODE_RANK"} <= os.environ.keys()
    if trainer.num_nodes > 1 and isinstance(environment, LightningEnvironment) and not told:
        raise InputError(
            f"num_nodes: {trainer.num_nodes}, but nothing tells this process of the others. Start the command on each "
            f"machine with torchrun --nnodes {trainer.num_nodes} --node_rank 0 (1, ...) --nproc_per_node N --master_addr HOST "
            "--master_port PORT -m apa_lightning ..., or with srun in a SLURM job."
        )


def refuse_sharding(trainer: Trainer) -> None:
    """Refuse strategies that divide the weights of the model among processes.

    Raises:
        InputError: If the Trainer has one.
    """
    if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy | DeepSpeedStrategy):
        raise InputError(
            f"strategy: {type(trainer.strategy).__name__} divides the weights among processes, and checkpoints, the "
            "exported adapter and the edits of a validation need them whole. Use ddp: only the adapter is trained, so it sends "
            "and keeps little. For a small GPU add --config configs/hardware/low_memory.yaml."
        )


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line ``args``, by default the process's own.

    A user's mistake prints one line and exits with 2; any other exception is a bug and keeps its traceback.
    """
    quiet_libraries()
    with mistakes_told():
        CLI(
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
