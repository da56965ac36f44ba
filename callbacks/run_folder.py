"""The folder of a run."""

from pathlib import Path

import lightning as L


def run_folder(trainer: L.Trainer) -> Path:
    """The logger's folder, or ``default_root_dir`` without one. Every process must call this: it asks the first."""
    return Path(trainer.log_dir or trainer.default_root_dir)
