"""The only file that touches private parts of Lightning, each with the reason why no public part does.

A release of Lightning may rename any of these; tests/test_structure.py finds uses elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from jsonargparse import _typehints
from jsonargparse._optionals import omegaconf_absolute_to_relative_paths as relative_interpolations  # noqa: F401
from jsonargparse._typehints import ActionTypeHint
from jsonargparse._util import NestedArg
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loops.utilities import _reset_progress

# --- where training is ------------------------------------------------------------------------------------------------


def is_accumulating(trainer: Trainer) -> bool:
    """Whether the gradients of the batch that ended wait for those of further batches; the Trainer does not tell."""
    return trainer.fit_loop._should_accumulate()


def training_batch(trainer: Trainer) -> int:
    """Number of the training batch since the run started, over all epochs; -1 before the first one.

    The Trainer counts optimizer steps only.
    """
    return trainer.fit_loop.total_batch_idx


def batches_started(trainer: Trainer) -> int:
    """Training batches of this epoch that were fetched; a data module resumes there, and only the loop counts them."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.ready


def validate_now(trainer: Trainer) -> None:
    """Run a validation in the midst of fit, logged at the present step, and leave no trace of it in the trainer's state.

    Lightning validates at its own times alone: its sanity check logs nothing, and ``Trainer.validate`` ends fit.
    """
    loop, connector = trainer.fit_loop.epoch_loop.val_loop, trainer._logger_connector
    first_batch = connector._first_loop_iter
    trainer.validating = True
    try:
        loop.run()
    finally:
        trainer.training = True
        connector._first_loop_iter = first_batch
        connector.reset_metrics()
        _reset_progress(loop)


# --- attributes that the Trainer's types do not declare: its connectors set them ---------------------------------------


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The callbacks of the Trainer."""
    return cast(Any, trainer).callbacks


@contextmanager
def use_callbacks(trainer: Trainer, callbacks: list[Callback]) -> Iterator[None]:
    """Let the Trainer call no other callbacks than these inside the block."""
    untyped, before = cast(Any, trainer), callbacks_of(trainer)
    untyped.callbacks = callbacks
    try:
        yield
    finally:
        untyped.callbacks = before


def is_fast_dev_run(trainer: Trainer) -> bool:
    """Whether the run is a fast development run, which leaves no files."""
    return bool(cast(Any, trainer).fast_dev_run)


def is_logged(trainer: Trainer, step: int) -> bool:
    """Whether the Trainer logs what is measured up to optimizer step ``step``; 0 as ``log_every_n_steps`` means never."""
    every = cast(Any, trainer).log_every_n_steps
    return every > 0 and step % every == 0


# --- stopping and resuming --------------------------------------------------------------------------------------------


def ask_to_stop(trainer: Trainer, stop: bool = True) -> None:
    """Make Lightning's loops raise SIGTERMException after the current batch, when their counters are whole.

    The flag that they check is set by Lightning's own handler of SIGTERM alone, and can only be read publicly.
    """
    trainer._signal_connector.received_sigterm = stop


def is_signal_handler_of(trainer: Trainer, handler: object) -> bool:
    """Whether ``handler`` was installed by Lightning, which names its handlers nowhere."""
    return type(handler).__module__ == type(trainer._signal_connector).__module__


def forget_unfinished_validation_batch(trainer: Trainer) -> None:
    """Drop the batch in which a validation was left from Lightning's totals; on resuming it only resets the epoch's."""
    trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()


def rewind_validation(checkpoint: dict[str, Any]) -> None:
    """Set a checkpoint's validation back to its first batch: its sums so far are in no checkpoint."""
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    before = progress["total"]["completed"] - progress["current"]["completed"]
    for name, done in (("total", before), ("current", 0)):
        progress[name] |= {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}
    progress["is_last_batch"] = False


def save_checkpoint_now(callback: ModelCheckpoint, trainer: Trainer) -> None:
    """Save as the callback would at its next trigger; its public methods are the triggers alone."""
    if not callback._should_skip_saving_checkpoint(trainer):
        callback._save_topk_checkpoint(trainer, callback._monitor_candidates(trainer))


def continue_log_folder(trainer: Trainer, run: Path) -> None:
    """Let TensorBoard's logger write to the folder of an earlier run.

    Its version is an argument, but one that would then stand among the settings, where it belongs to no single run.
    """
    logger = trainer.logger
    if isinstance(logger, TensorBoardLogger) and run.parent.resolve() == Path(logger.root_dir).resolve():
        logger._version = run.name


# --- plugins and strategies -------------------------------------------------------------------------------------------


def use_checkpoint_io(trainer: Trainer, checkpoint_io: TorchCheckpointIO) -> None:
    """Replace Lightning's own checkpoint files, and no others.

    As a plugin it would stand in the way of strategies that bring a format of their own, such as sharded checkpoints.
    """
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = checkpoint_io


def leave_out_of_ddp(module: LightningModule, names: Iterable[str]) -> None:
    """Exclude parameters and buffers from DDP, which otherwise broadcasts them at the start, and buffers in every step.

    The name is torch's; DDP reads it from the module and offers no argument.
    """
    cast(Any, module)._ddp_params_and_buffers_to_ignore = list(names)


# --- the command line -------------------------------------------------------------------------------------------------


class CommandLine(LightningCLI):
    """LightningCLI with room for subcommands that are plain functions and need no Trainer.

    LightningCLI has public hooks for none of what its private methods are overridden for here. Subclasses override
    the public ones.
    """

    def add_functions(self, subcommands: Any) -> None:
        """Add further subcommands after those of the Trainer.

        Args:
            subcommands: jsonargparse's action, with ``add_subcommand(name, parser, help=...)``.
        """

    def function(self, name: str) -> Callable[[dict[str, Any]], None] | None:
        """The function behind the subcommand ``name``, called with its settings; None for one of the Trainer."""

    def check_ckpt_path(self, path: str) -> None:
        """Check ``--ckpt_path`` before anything is built."""

    def trainer_arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Change the arguments of the Trainer's method."""
        return arguments

    @property
    def trainer_parsers(self) -> dict[str, LightningArgumentParser]:
        """The parsers of the Trainer's subcommands by name."""
        return self._subcommand_parsers

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        self.add_functions(cast(Any, parser)._subcommands_action)

    def _parse_ckpt_path(self) -> None:
        # Lightning would read the checkpoint's settings here, over those of the command line.
        if path := self.config[self.config.subcommand].get("ckpt_path"):
            self.check_ckpt_path(path)

    def _set_seed(self) -> None:
        if not self.function(str(self.subcommand)):
            super()._set_seed()

    def instantiate_classes(self) -> None:
        """Build data, model and Trainer, if the subcommand needs them."""
        if not self.function(str(self.subcommand)):
            super().instantiate_classes()

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return self.trainer_arguments(super()._prepare_subcommand_kwargs(subcommand))

    def _run_subcommand(self, subcommand: str) -> None:
        if function := self.function(subcommand):
            function(self.parser.instantiate(self.config)[subcommand].as_dict())
        else:
            super()._run_subcommand(subcommand)


def no_settings_files(parser: Any) -> None:
    """Keep a file that ``--model.adapter`` or the like names from being read as settings of a class.

    jsonargparse reads any file that is given for a class; an empty adapter file would mean ``null``.
    """
    for action in parser._actions:
        if action.dest == "model":
            action.sub_add_kwargs["sub_configs"] = False


def read_values_with(as_typed: Callable[[Any, Any], tuple[Any, bool]]) -> None:
    """Let the type of a setting decide how its text is read.

    jsonargparse reads every string as YAML before it looks at the type, which it tells no loader.

    Args:
        as_typed: Takes a value and a type; returns the value, and whether it is not to be read as YAML.
    """
    check_type = ActionTypeHint._check_type

    def read(self: Any, value: Any, append: bool = False, cfg: Any = None, mode: Any = None) -> Any:
        kind = self._typehint
        if isinstance(value, NestedArg) and isinstance(value.val, str) and self.is_subclass_typehint(kind, False):
            if value.key not in ("class_path", "init_args", "dict_kwargs"):
                value = NestedArg(value.key, _Unread(value.val))  # the class's own parser knows the type
        else:
            value, is_final = as_typed(str(value) if isinstance(value, _Unread) else value, kind)
            value = _Unread(value) if is_final and isinstance(value, str) else value
        found = check_type(self, value, append, cfg, mode)
        return str(found) if isinstance(found, _Unread) else found

    if check_type.__name__ != read.__name__:
        ActionTypeHint._check_type = read  # type: ignore[method-assign]
        # Of a setting that is a function or text, jsonargparse would write text as "Unable to serialize instance ...".
        as_path = _typehints.serialize_as_import_path
        _typehints.serialize_as_import_path = lambda value: value if isinstance(value, str) else as_path(value)


class _Unread(str):
    """Text that jsonargparse does not read as YAML, because it does so for plain strings only."""

    __slots__ = ()
