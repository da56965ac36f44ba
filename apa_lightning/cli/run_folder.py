"""The folder of a training run: resuming in it, and its settings."""

import itertools
import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import atomic_path
from apa_lightning.utils.checkpoints import last_checkpoint, run_of


class SaveFitConfig(SaveConfigCallback):
    """Saves the settings of a training run in its folder. Other commands have none: ``predict`` has them in its results.

    A run that is resumed with other settings keeps the earlier ones as ``config-1.yaml`` and so on.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write ``config.yaml`` before training starts."""
        if stage != "fit" or (folder := trainer.log_dir) is None or not trainer.is_global_zero:
            return
        config = self.config.clone()
        config["ckpt_path"] = None  # where a run was resumed stands in history.jsonl
        settings, path = self.parser.dump(config, skip_unset=False), Path(folder, self.config_filename)
        with atomic_path(path, sole_writer=True) as temporary:
            temporary.write_text(settings)
            if path.is_file() and path.read_text() != settings:
                earlier = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
                os.replace(path, next(name for name in earlier if not name.exists()))


def resume(config: Any) -> Path | None:
    """Set ``ckpt_path`` of a training run's settings to the newest checkpoint, if the run is to be resumed.

    That is so with ``--ckpt_path last``, and for a job that SLURM requeued, which cannot be given another command.
    Where there is no checkpoint yet, training starts at the first step.

    Returns:
        The folder of the run that is resumed, or None.
    """
    root, path = _root(config), config.get("ckpt_path")
    if path not in ("last", "hpc") and not (path is None and _was_requeued(root)):
        return None
    try:
        checkpoint = last_checkpoint(root)
    except FileNotFoundError as error:
        rank_zero_info(f"{error} Training starts at the first step.")
        config.ckpt_path = None
        return None
    config.ckpt_path = str(checkpoint)
    return run_of(checkpoint)


def refuse_requeued(config: Any) -> None:
    """Refuse commands other than fit where Lightning would load a requeued training over the adapter that was asked for.

    Raises:
        InputError: If SLURM's requeueing left a checkpoint in ``default_root_dir``, and no ``ckpt_path`` is given.
    """
    root = _root(config)
    if config.get("ckpt_path") is None and _was_requeued(root):
        raise InputError(
            f"trainer.default_root_dir: '{root}' holds a hpc_ckpt_*.ckpt of a requeued training. Give --ckpt_path last "
            "to use it, or another --trainer.default_root_dir."
        )


def _root(config: Any) -> Path:
    return Path(config.trainer.default_root_dir or ".")


def _was_requeued(root: Path) -> bool:
    return SLURMEnvironment.detect() and any(root.glob("hpc_ckpt_*.ckpt"))
