"""One evaluation, from a plan to a folder of results: edits by all systems, their scores, tables, plots and the report.

Edits and scores are made once and kept. An evaluation that is started again makes only what is missing or depends on what was
changed, and several processes may work on one folder.
"""

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

import apa_lightning
from apa_lightning.edit_jobs.editor_checks import check_against_editor, identity_of
from apa_lightning.edit_jobs.queue import EditQueue
from apa_lightning.edit_jobs.results import EditResults
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.editing.knobs import WHY_MISSING
from apa_lightning.editing.regions import joints_of
from apa_lightning.editing.request import EditRequest
from apa_lightning.evaluation.measure import EditFiles, Measured, Measurer
from apa_lightning.evaluation.plan import EvaluationPlan, PlannedEdit
from apa_lightning.evaluation.report.page import write_report
from apa_lightning.evaluation.report.tables import write_tables
from apa_lightning.evaluation.rows import ABOUT_FILE, DISTANCES, EvaluationRow, columns_for, write_rows
from apa_lightning.evaluation.summary import family_of
from apa_lightning.evaluation.systems import SystemRequest
from apa_lightning.metrics import EditMetric, Encoders, SetMetric, following_others
from apa_lightning.utils.atomic_files import remove_leftovers, write_file
from apa_lightning.utils.progress import progress

#: Name of the table of all edits; ``results.csv`` has their scores.
EDITS = "edits.csv"
_VERSIONS = ("torch", "diffusers", "transformers", "librosa", "mir_eval")


def evaluate(
    editor: AudioEditor,
    plan: EvaluationPlan,
    metrics: Sequence[EditMetric | SetMetric],
    *,
    encoders: Encoders | None = None,
    reference: Sequence[Path] | None = None,
    batch_size: int = 1,
    overwrite: bool = False,
    facts: Mapping[str, Any] | None = None,
    first: bool = True,
) -> Path:
    """Make the edits of a plan, measure them, and write results.csv, set_metrics.json, evaluation.json, table1.md, report.html.

    Args:
        editor: The editor, on the device where it shall run.
        plan: What to edit, by which systems, into which folder.
        metrics: Metrics of edits, in the order of their columns, and metrics of sets.
        encoders: What the metrics encode clips with; by default the CLAP that the backbone reads prompts with.
        reference: Recordings that metrics of sets compare with; by default the sources.
        batch_size: Most edits with equal settings and lengths that are denoised together.
        overwrite: Replace audio files that this program did not make, or that were changed since.
        facts: More entries for evaluation.json.
        first: Whether this is the first of several processes: the one that reports progress.

    Returns:
        The folder of the evaluation.

    Raises:
        InputError: If a system, metric or setting cannot be used, before any edit; at the end if edits failed.
    """
    plan, encoders = plan.with_defaults(editor.edit_defaults), encoders or Encoders(editor.backbone)
    if first and plan.left_out:
        why = WHY_MISSING[editor.backbone.sampling]
        print(f"evaluate: without {', '.join(plan.left_out)}, which the backbone cannot run: {why}.", flush=True)
    for system in plan.systems.values():
        system.check()
    for metric in metrics:
        metric.connect(encoders)
    edit_metrics = [metric for metric in metrics if isinstance(metric, EditMetric)]
    set_metrics = [metric for metric in metrics if isinstance(metric, SetMetric)]
    measurer = Measurer(edit_metrics, set_metrics, plan.output / "measures")

    queue = make_edits(editor, plan, batch_size, overwrite, first)
    done = measure_edits(plan, queue, measurer, first)

    columns = columns_for(edit_metrics)
    rows = [
        EvaluationRow(planned.about, planned.knobs, measurer.scores(measured), columns) for planned, measured in done
    ]
    distances = set_distances(plan, done, set_metrics, measurer, reference)
    about = _about(plan, editor, encoders, metrics, rows) | dict(facts or {})
    failures = queue.failures()
    if failures:
        about["skipped_metrics"][f"{len(failures)} edits"] = f"they failed: {', '.join(list(failures)[:5])}"
    with queue.results.publishing():
        write_results(plan.output, rows, distances, about)
    queue.raise_failures("evaluate", failures)
    return plan.output


def make_edits(
    editor: AudioEditor, plan: EvaluationPlan, batch_size: int = 1, overwrite: bool = False, first: bool = True
) -> EditQueue:
    """Make the edits that are missing; see :func:`evaluate` for the arguments."""
    edits = [planned.edit for planned in plan.edits.values()]
    check_against_editor(edits, plan.settings, editor)
    results = EditResults(plan.output, EDITS)
    results.check_all_free(edits, overwrite)
    queue = EditQueue(
        edits,
        results,
        batch_size,
        editor.backbone.window_seconds,
        lambda: _identity(plan, editor),
        lambda line: print(f"evaluate: {line}", flush=True) if first else None,
    )
    queue.has_writer = True
    half = editor.backbone.dtype == torch.bfloat16
    try:
        with progress(len(edits), "edits", "edit", shown=first) as bar:
            for batch in queue:
                system = plan.systems[cast(SystemRequest, batch.requests[0]).system]
                with torch.no_grad(), torch.autocast(editor.backbone.device.type, torch.bfloat16, enabled=half):
                    made = system.edit(editor, batch.requests)
                for result in made:
                    queue.write(result)
                bar.update(queue.settled() - bar.n)
    except BaseException:
        if first and queue.keys:
            print(
                f"evaluate: stopped; {len(queue.skipped) + len(queue.made())} of {len(edits)} edits are finished in "
                f"{plan.output}. The same command makes the rest.",
                flush=True,
            )
        raise
    results.refresh()
    results.tidy()
    results.write_table()
    return queue


def measure_edits(
    plan: EvaluationPlan, queue: EditQueue, measurer: Measurer, first: bool = True
) -> list[tuple[PlannedEdit, Measured]]:
    """Measure all edits that were made; those that another process is measuring come last, and are read from its files."""
    work = list(_files(plan, queue))
    waiting: list[tuple[PlannedEdit, EditFiles]] = []
    with progress(len(work), "measuring", "edit", shown=first) as bar:
        for wait, share in ((False, work), (True, waiting)):
            for planned, files in share:
                with queue.results.claim(files.key, wait=wait) as held:
                    if held:
                        measurer.measure(files)
                        bar.update()
                    else:
                        waiting.append((planned, files))
    return [(planned, measurer.measure(files)) for planned, files in work]


def _files(plan: EvaluationPlan, queue: EditQueue) -> Iterator[tuple[PlannedEdit, EditFiles]]:
    """The edits that were made, each with its source and the source that follows, for the floors."""
    used: dict[str, Any] = {planned.source.name: planned.source for planned in plan.edits.values()}
    following = following_others([*used.values()], lambda source: cast(Any, source).name)
    others: dict[str, Any] = dict(zip(used, following, strict=True))
    for edit_id, planned in plan.edits.items():
        record = queue.results.done(edit_id, queue.keys[edit_id])
        if record is None:
            continue
        other, request, info = others[planned.source.name], planned.edit.request, planned.edit.info
        yield (
            planned,
            EditFiles(
                edited=plan.output / planned.about["output"],
                source=planned.source.path,
                other=None if other is None else other.path,
                prompt=planned.about["score_text"],
                source_prompt=planned.source_text,
                target=planned.about["target"] if planned.task.recognise else None,
                joints=() if info is None else joints_of(request, info.seconds),
                lead=(request.extend or (0.0,))[0],
                digests=(record["sha256"], record["audio_sha256"], other.name if other else planned.source.name),
            ),
        )


def set_distances(
    plan: EvaluationPlan,
    done: Sequence[tuple[PlannedEdit, Measured]],
    set_metrics: Sequence[SetMetric],
    measurer: Measurer,
    reference: Sequence[Path] | None = None,
) -> list[dict[str, Any]]:
    """The entries of ``set_metrics.json``: every metric of sets, of every task and system but the points of grids."""
    recordings = list(reference or dict.fromkeys(planned.source.path for planned, _ in done))
    references = [measurer.reference(path) for path in recordings] if set_metrics else []
    found = []
    for task in plan.tasks:
        for system in plan.systems:
            if family_of(system) != system:
                continue
            mine = [
                measured
                for planned, measured in done
                if (planned.task.name, planned.about["system"]) == (task.name, system)
            ]
            for metric in set_metrics:
                name = metric.embedding.name if metric.embedding else ""
                edited, real = (
                    torch.from_numpy(
                        np.concatenate([np.zeros((0, measurer.embeddings[name].dimension), np.float32), *of])
                    )
                    for of in ([one.embeddings[name] for one in mine], [one[name] for one in references])
                )
                score = metric.distance(edited, real)
                found.append(
                    {
                        "task": task.name, "system": system, "metric": metric.name, "title": metric.title,
                        "value": _plain(score.value), "low": _plain(score.low), "high": _plain(score.high),
                        "why": score.why, "edits": len(mine), "reference": len(recordings),
                        "fit": [list(point) for point in score.fit],
                    }
                )  # fmt: skip
    return found


def write_results(folder: Path, rows: list[EvaluationRow], distances: list[dict], about: dict[str, Any]) -> None:
    """Write all files of an evaluation but its edits."""
    for place in (folder, folder / "plots"):
        remove_leftovers(place)
    for name, content in ((DISTANCES, distances), (ABOUT_FILE, about)):
        write_file(folder / name, json.dumps(content, indent=1) + "\n")
    write_rows(folder, rows)
    write_tables(folder, rows, distances, about)
    write_report(folder, rows, distances, about)


def _identity(plan: EvaluationPlan, editor: AudioEditor) -> Callable[[EditRequest], Mapping[str, Any]]:
    """What decides an edit's sound besides its request: the parts that its system uses, and no other."""
    parts = identity_of(editor)

    def of(request: EditRequest) -> Mapping[str, Any]:
        system = plan.systems[cast(SystemRequest, request).system]
        return {name: value for part in system.parts for name, value in parts[part].items()} | system.identity()

    return of


def _about(
    plan: EvaluationPlan,
    editor: AudioEditor,
    encoders: Encoders,
    metrics: Sequence[EditMetric | SetMetric],
    rows: Sequence[EvaluationRow],
) -> dict[str, Any]:
    """The content of ``evaluation.json``."""
    columns = columns_for([metric for metric in metrics if isinstance(metric, EditMetric)])
    claps: set[str] = {cast(Any, metric).clap.name for metric in metrics if hasattr(metric, "clap")}
    embeddings = {metric.embedding.name for metric in metrics if isinstance(metric, SetMetric) and metric.embedding}
    return {
        "tasks": [task.name for task in plan.tasks],
        "systems": {name: system.description for name, system in plan.systems.items()},
        "set": plan.set_name,
        "sources": len({row.source for row in rows}),
        "seed": plan.settings.seed,
        "backbone": editor.backbone.name,
        "adapter": ",".join(one.digest() for one in editor.adapters),
        "clap": ", ".join(sorted(claps)),
        "embedding": ", ".join(sorted(embeddings)),
        "reference": f"the {plan.set_name} set's own sources",
        "versions": {"apa_lightning": apa_lightning.__version__, **{name: version(name) for name in _VERSIONS}},
        "skipped_metrics": {
            metric.title: metric.why_missing
            for metric in metrics
            if isinstance(metric, EditMetric)
            and metric.why_missing
            and all(math.isnan(row.score(metric.name)) for row in rows)
        },
        "metrics": {name: vars(column) for name, column in columns.items()},
        "command": " ".join(["python -m apa_lightning", *sys.argv[1:]]),
    }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
