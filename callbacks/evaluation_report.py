"""The end of an evaluation: every edit measured, then tables, plots and the report."""

import json
import math
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from tqdm import tqdm

import apa_lightning
from apa_lightning.errors import InputError
from apa_lightning.evaluation.measure import Measurer, Measures, Pair
from apa_lightning.evaluation.report.findings import write_findings
from apa_lightning.evaluation.report.page import write_report
from apa_lightning.evaluation.report.tables import write_tables
from apa_lightning.evaluation.rows import Row, write_rows
from apa_lightning.evaluation.sweep import write_operating_points
from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.metrics.sets.embeddings import load_embedding
from apa_lightning.metrics.sets.frechet import fad_infinity, frechet_audio_distance
from apa_lightning.metrics.sets.kernel import kernel_audio_distance
from apa_lightning.module import AudioPromptModule
from apa_lightning.pocket.parts.judge import NAMES, InstrumentJudge
from apa_lightning.utils.atomic_files import atomic_path, remove_leftovers
from apa_lightning.utils.pretrained import packaged
from callbacks.prediction_writer import TERMINATED
from datamodules.evaluation import EvaluationDataModule, Planned
from datamodules.evaluation_sets import read_set

SET_METRICS = {"fad": frechet_audio_distance, "fad_infinity": fad_infinity, "kad": kernel_audio_distance}
_VERSIONS = ("torch", "lightning", "diffusers", "transformers", "librosa", "mir_eval")


class EvaluationReport(Callback):
    """Measures what `evaluate` has made, each process its share, and writes results.csv, set_metrics.json, evaluation.json,
    table1.md and report.html. What was measured before is read again.

    Args:
        kind: ``sweep`` also writes an operating point for each task; ``findings`` the paper's, with a verdict each.
    """

    def __init__(self, kind: Literal["evaluate", "sweep", "findings"] = "evaluate"):
        self.kind = kind
        self._measurer: Measurer | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the CLAP, the embedding and the reference before the first edit.

        Raises:
            InputError: one of them cannot be used.
        """
        data = cast(Any, trainer).datamodule
        if not isinstance(data, EvaluationDataModule) or not data.is_evaluation:
            raise InputError(
                "data: evaluate needs tasks and a set of sources, without --data.folder, manifest and prompt. "
                "Give --config configs/tasks/timbre.yaml, and recordings as --data.sources FOLDER."
            )
        module = cast(AudioPromptModule, pl_module)
        clap = ClapEmbedder.from_pretrained(data.clap) if data.clap else ClapEmbedder.of(module.backbone)
        judge = InstrumentJudge.from_pretrained(packaged()) if any(task.recognise for task in data.tasks) else None
        embedding = load_embedding(data.embedding, clap, data.vggish)
        self._measurer = Measurer(clap, embedding, judge, data.output / "measures")
        if data.reference is not None:
            read_set(data.reference, None, data.output)

    @torch.no_grad()
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data: EvaluationDataModule = cast(Any, trainer).datamodule
        assert data.queue is not None and self._measurer is not None
        data.queue.results.refresh()
        todo = list(self._pairs(data))
        share = todo[trainer.global_rank :: trainer.world_size]
        for _, pair, digests in tqdm(
            share, desc="measuring", unit="edit", disable=not trainer.is_global_zero, dynamic_ncols=True
        ):
            key = self._measurer.key(pair, digests)
            with data.queue.results.claim(key, wait=True):  # unless another command measures it
                self._measurer.measure(pair, digests)
            if trainer.received_sigterm:  # Lightning looks at it in fit alone
                raise SIGTERMException(TERMINATED)
        trainer.strategy.barrier("measured")
        if trainer.is_global_zero:
            self._publish(data, cast(AudioPromptModule, pl_module), todo)

    def _pairs(self, data: EvaluationDataModule) -> Iterator[tuple[Planned, Pair, tuple[str, ...]]]:
        """What was made, each with its source, another source, and the digests of all three."""
        assert data.queue is not None
        sources = {planned.source.name: planned.source for planned in data.planned.values()}
        names = list(sources)
        digests = {}
        for edit_id, planned in data.planned.items():
            record = data.queue.results.done(edit_id, data.queue.keys[edit_id])
            if record is None:
                continue
            following = names[(names.index(planned.source.name) + 1) % len(names)]
            other = sources[following] if following != planned.source.name else None
            digests[planned.source.name] = record["audio_sha256"]
            yield (
                planned,
                Pair(
                    edited=data.output / planned.about["output"],
                    source=planned.source.path,
                    other=None if other is None else other.path,
                    score_text=planned.about["score_text"],
                    source_text=planned.source_text,
                    target=planned.about["target"]
                    if planned.task.recognise and planned.about["target"] in NAMES
                    else None,
                ),
                (record["sha256"], record["audio_sha256"], following),
            )

    # --- what is written ------------------------------------------------------------------------------------------------

    def _publish(
        self, data: EvaluationDataModule, module: AudioPromptModule, made: list[tuple[Planned, Pair, tuple[str, ...]]]
    ) -> None:
        assert self._measurer is not None
        measures = [self._measurer.measure(pair, digests) for _, pair, digests in made]
        plans = [planned for planned, _, _ in made]
        rows = [
            Row(planned.about, planned.knobs, measured.figures)
            for planned, measured in zip(plans, measures, strict=True)
        ]
        set_metrics = self._set_metrics(data, plans, measures)
        about = self._about(data, module, plans)
        assert data.queue is not None
        with data.queue.results.publishing():
            self._write(data, rows, set_metrics, about)

    def _write(self, data: EvaluationDataModule, rows: list[Row], set_metrics: list[dict], about: dict) -> None:
        for folder in (data.output, data.output / "plots"):
            remove_leftovers(folder)
        for name, content in (("set_metrics.json", set_metrics), ("evaluation.json", about)):
            with atomic_path(data.output / name) as temporary:
                temporary.write_text(json.dumps(content, indent=1) + "\n")
        table = write_rows(data.output, rows)
        write_tables(data.output, rows, set_metrics, about)
        if self.kind == "sweep":
            for path in write_operating_points(data.output, rows):
                print(f"sweep: operating point {path}: --config {path} of predict and evaluate")
        if self.kind == "findings":
            print(write_findings(data.output, rows), flush=True)
        report = write_report(data.output, rows, set_metrics, about)
        print(f"{self.kind}: {len(rows)} rows in {table}; tables in {data.output / 'table1.md'}; to listen: {report}")

    def _set_metrics(
        self, data: EvaluationDataModule, plans: list[Planned], measures: list[Measures]
    ) -> list[dict[str, Any]]:
        """FAD, FAD-infinity and KAD of every task and system but the points of grids."""
        assert self._measurer is not None
        measurer = self._measurer
        if data.reference is None:
            recordings = list(dict.fromkeys(planned.source.path for planned in plans))
        else:
            recordings = [source.path for source in read_set(data.reference, None, data.output)[1]]
        parts = [measurer.reference(path) for path in recordings]
        reference = _joined(parts, measurer.embedding.dimension)
        found = []
        for task in data.tasks:
            for name, system in data.systems.items():
                if name != type(system).name:
                    continue
                mine = [
                    measured.embeddings
                    for planned, measured in zip(plans, measures, strict=True)
                    if (planned.task.name, planned.about["system"]) == (task.name, name)
                ]
                for metric, function in SET_METRICS.items():
                    figure = function(_joined(mine, measurer.embedding.dimension), reference)
                    found.append(
                        {
                            "task": task.name, "system": name, "metric": metric, "value": _plain(figure.value),
                            "low": _plain(figure.low), "high": _plain(figure.high), "why": figure.why,
                            "edits": len(mine), "reference": len(recordings), "fit": [list(point) for point in figure.fit],
                        }
                    )  # fmt: skip
        return found

    def _about(self, data: EvaluationDataModule, module: AudioPromptModule, plans: list[Planned]) -> dict[str, Any]:
        assert self._measurer is not None
        skipped = {}
        if data.vggish is None:
            skipped["FAD (VGGish)"] = "its weights were not given (--data.embedding vggish --data.vggish FILE)"
        if self._measurer.judge is None:
            skipped["target recognised"] = "no task asks for an instrument (tasks.recognise)"
        if data.queue is not None and (failed := data.queue.failures()):
            skipped[f"{len(failed)} edits"] = f"they failed: {', '.join(list(failed)[:5])}"
        return {
            "tasks": [task.name for task in data.tasks],
            "systems": {name: system.description for name, system in data.systems.items()},
            "set": data.set_name,
            "sources": len({planned.source.name for planned in plans}),
            "seed": data.defaults["seed"],
            "backbone": module.backbone.name,
            "adapter": module.adapter.digest(),
            "clap": self._measurer.clap.name,
            "embedding": self._measurer.embedding.name,
            "reference": data.reference or f"the {data.set_name} set's own sources",
            "versions": {"apa_lightning": apa_lightning.__version__, **{name: version(name) for name in _VERSIONS}},
            "skipped_metrics": skipped,
            "command": " ".join(["python -m apa_lightning", *sys.argv[1:]]),
        }


def _joined(parts: list[np.ndarray], dimension: int) -> Tensor:
    return torch.from_numpy(np.concatenate([np.zeros((0, dimension), np.float32), *parts]))


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
