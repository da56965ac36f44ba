"""The commands that evaluate: predict with several systems."""

from typing import Any

from jsonargparse import Namespace

from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import EMBEDDED
from datamodules.evaluation import GRID

EVALUATIONS = ("evaluate", "sweep", "findings")


def prepare_evaluation(command: str, config: Any) -> None:
    """base.yaml is of a training run: its callbacks, logger and missing adapter are not what is evaluated."""
    data = config.get("data")
    if data is None or "tasks" not in data.init_args:
        raise InputError(f"{command} needs a task, for example --config configs/tasks/timbre.yaml.")
    trainer = config["trainer"]
    trainer.logger = trainer.enable_checkpointing = False
    trainer.callbacks = [
        Namespace(class_path="callbacks.PredictionWriter"),
        Namespace(class_path="callbacks.EvaluationReport", init_args=Namespace(kind=command)),
    ]
    model = config["model"].init_args
    if not config.get("ckpt_path") and model.adapter is None:
        if model.backbone != EMBEDDED:
            raise InputError("--model.adapter: is missing; give the adapter file to evaluate, or --ckpt_path.")
        model.adapter = EMBEDDED
    if command != "evaluate" and data.init_args.grid is None:
        data.init_args.grid = {name: list(values) for name, values in GRID.items()}
