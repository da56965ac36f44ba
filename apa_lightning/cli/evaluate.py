"""The commands that evaluate. ``evaluate`` edits and measures; ``sweep`` and ``findings`` read its results.csv."""

import os
from pathlib import Path
from typing import Any

import torch

from apa_lightning.editing.editor import check_device
from apa_lightning.errors import InputError
from apa_lightning.evaluation.report.findings import write_findings
from apa_lightning.evaluation.report.page import FILE as REPORT
from apa_lightning.evaluation.report.tables import FILE as TABLES
from apa_lightning.evaluation.rows import ABOUT_FILE, RESULTS, read_json, read_rows
from apa_lightning.evaluation.session import evaluate as run_evaluation
from apa_lightning.evaluation.sweep import write_operating_points
from apa_lightning.metrics import Encoders
from apa_lightning.module import AudioPromptModule
from apa_lightning.utils.checkpoints import check_checkpoint, last_checkpoint
from datamodules.evaluation import EvaluationSet


def evaluate(
    data: EvaluationSet,
    model: AudioPromptModule,
    ckpt_path: Path | None = None,
    device: str = "auto",
    seed_everything: int = 0,
) -> None:
    """Edit a set by several systems with the same prompts and seeds and measure them: tables, plots, a page to listen to.

    Args:
        data: What is edited, by which systems, and what is measured.
        model: The model with the adapter.
        ckpt_path: Checkpoint of a training run whose adapter is evaluated, or `last`; otherwise give the adapter.
        device: `auto`, `cpu`, `cuda:0`, ...; `auto` means a GPU if there is one.
        seed_everything: Accepted for configurations of other commands; edits have seeds of their own.
    """
    rank = int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0")))
    load_weights(model, ckpt_path)
    editor = model.to(_device(device, rank)).eval().editor()
    encoders = Encoders(editor.backbone, data.clap, data.embedding, data.vggish)
    facts: dict[str, Any] = {"reference": data.reference_name} if data.reference_name else {}
    folder = run_evaluation(
        editor,
        data.plan,
        data.metrics,
        encoders=encoders,
        reference=data.reference,
        batch_size=data.batch_size,
        overwrite=data.overwrite,
        facts=facts,
        first=rank == 0,
    )
    if rank == 0:
        print(f"evaluate: scores in {folder / RESULTS}; tables in {folder / TABLES}; to listen: {folder / REPORT}")


def sweep(
    data: EvaluationSet | None = None,
    model: AudioPromptModule | None = None,
    ckpt_path: Path | None = None,
    device: str = "auto",
    seed_everything: int = 0,
    results: Path | None = None,
) -> None:
    """Choose an operating point for each task from an evaluation that tried values of the knobs (the paper's Fig. 2).

    Args:
        data: As of `evaluate`, which is run first; it needs a grid, for example `--data.grid fig2`.
        model: As of `evaluate`.
        ckpt_path: As of `evaluate`.
        device: As of `evaluate`.
        seed_everything: As of `evaluate`.
        results: Folder of an evaluation with a grid. Its results.csv is read, and neither data nor a model is needed.
    """
    if results is None:
        if data is None or model is None:
            raise InputError(
                "results: is missing; give the folder of an evaluation, or settings of one: --config configs/evaluate.yaml "
                "--config configs/tasks/timbre.yaml"
            )
        if not data.grid:
            raise InputError(
                "grid: is missing; give fig2 (the paper's Fig. 2), or values of knobs: '{ap_scale: [0.2, 0.8]}'."
            )
        evaluate(data, model, ckpt_path, device)
        results = data.plan.output
    rows, about = read_rows(results), read_json(results / ABOUT_FILE, {})
    paths = write_operating_points(results, rows, int(about.get("seed") or 0))
    if not paths:
        raise InputError(f"results: {results / RESULTS} holds no points of a grid. Run evaluate with --data.grid fig2.")
    for path in paths:
        print(f"sweep: operating point {path}: --config {path} of predict and evaluate")


def findings(results: Path) -> None:
    """Check the six findings of the paper, with a verdict for each, from an evaluation's results.csv.

    Args:
        results: Folder of an evaluation, best one with `--data.grid fig2`.
    """
    about = read_json(results / ABOUT_FILE, {})
    print(write_findings(results, read_rows(results), int(about.get("seed") or 0)), flush=True)


def load_weights(model: AudioPromptModule, ckpt_path: Path | None) -> None:
    """Load the parts of a model and, strictly, the adapter of a checkpoint.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        InputError: If it does not fit the model, or if neither a checkpoint nor an adapter is given.
    """
    model.configure_model()
    if ckpt_path is None:
        if getattr(model, "sources", {}).get("adapter", "") is None:
            raise InputError("adapter: is missing; give the adapter file to evaluate, or --ckpt_path.")
        return
    path = last_checkpoint("runs") if str(ckpt_path) == "last" else ckpt_path
    check_checkpoint(path)
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)  # nothing in a checkpoint is ever executed
    model.on_load_checkpoint(checkpoint)
    model.load_state_dict(checkpoint["state_dict"], strict=True)


def _device(name: str, rank: int) -> str:
    if name == "auto":
        if torch.cuda.is_available():
            return f"cuda:{rank % torch.cuda.device_count()}"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    check_device(name)
    return name
