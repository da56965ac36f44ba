"""Scores of the validation edits, each next to the floors that make it readable."""

import logging
from collections.abc import Sequence
from functools import partial

import lightning as L
import torch
from torch import Tensor

from apa_lightning.audio import to_mono
from apa_lightning.errors import InputError
from apa_lightning.metrics import ChromaSimilarity, ClapScore, Clip, EditedClip, EditMetric, with_floors
from apa_lightning.metrics.clap_embedder import ClapEmbedder
from apa_lightning.module import AudioPromptModule
from apa_lightning.utils.lightning_compat import callbacks_of
from callbacks.loggers import log_charts
from callbacks.validation.edits import EditsCallback, ValidationEdit
from callbacks.validation.plan import ValidationPlan, file_name

log = logging.getLogger(__name__)

#: The edits and their floors, see :func:`apa_lightning.metrics.with_floors`.
SYSTEMS = ("edited", "text_only", "no_op", "shuffled")


class EditMetrics(EditsCallback):
    """Logs ``<name>/chroma/*`` (fidelity to the source) and ``<name>/clap/*`` (match with the prompt).

    Each comes for the edit, for text alone, for the untouched source and for shuffled pairs; all four are drawn in one
    chart of TensorBoard's custom scalars. ``<name>/chroma/edited`` and the others can be monitored by ModelCheckpoint
    and EarlyStopping. Every process edits clips of its own; the means are over all of them.

    Args:
        plan: Clips to edit, and the settings of the edits.
        every_n_validations: Number of validations from one with edits to the next; the first one has edits.
        during_sanity_check: Edit also in the sanity check before training.
        clap: CLAP folder or hub id for the scores; ``null`` means the one that the backbone itself encodes prompts with.
        name: Prefix of the logged names; give two of these callbacks different names.
    """

    def __init__(
        self,
        plan: ValidationPlan = ValidationPlan(),
        every_n_validations: int = 1,
        during_sanity_check: bool = False,
        clap: str | None = None,
        name: str = "metrics",
    ):
        super().__init__(plan, every_n_validations, during_sanity_check)
        if file_name(name) != name:
            raise InputError(
                f"name: {name!r} may hold letters, digits, '.', '-' and '_' only; try {file_name(name)!r}."
            )
        self.clap, self.name = clap, name
        self._embedder: ClapEmbedder | None = None
        #: Sources and edits from the text alone, which never change, with their features.
        self._clips: dict[tuple[str, ...], Clip] = {}

    def setup(self, trainer: L.Trainer, pl_module: AudioPromptModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._clips.clear()
        if self._embedder is None and stage in ("fit", "validate"):
            self._embedder = (
                ClapEmbedder.from_pretrained(self.clap) if self.clap else ClapEmbedder.of(pl_module.backbone)
            )
            log.info("%s: scores are by %s", self.name, self._embedder.name)

    def on_fit_start(self, trainer: L.Trainer, pl_module: AudioPromptModule) -> None:
        names = [callback.name for callback in callbacks_of(trainer) if isinstance(callback, EditMetrics)]
        for logger in trainer.loggers if trainer.is_global_zero else ():
            log_charts(logger, _charts(names, pl_module.pooling_rates.rates))

    def on_edits(self, trainer: L.Trainer, module: AudioPromptModule, edits: list[ValidationEdit]) -> None:
        assert self._embedder is not None  # setup has loaded it
        clap, rate = self._embedder.to(module.device), module.backbone.sample_rate

        def kept(waveform: Tensor, *name: str) -> Clip:
            return self._clips.setdefault(name, Clip(to_mono(waveform), rate))

        keys = [edit.plan.clip.key for edit in edits]
        compared = [
            EditedClip(
                Clip(to_mono(edit.edited.waveform), rate),
                kept(edit.plan.clip.waveform, edit.plan.clip.key),
                edit.plan.edited.prompt,
            )
            for edit in edits
        ]
        text_only = [kept(edit.text_only.waveform, edit.plan.clip.key, edit.plan.target) for edit in edits]
        skipped = 0
        for kind, make in (("chroma", ChromaSimilarity), ("clap", partial(ClapScore, clap))):
            for system, pairs in with_floors(compared, text_only, keys, make().shuffle).items():
                metric: EditMetric = make().to(module.device)
                metric.update(pairs)
                value = metric.compute()  # gathers from all processes: each comes here, with clips or without
                skipped += int(metric.skipped)
                if not torch.isnan(value):  # as for shuffled pairs of a single clip
                    module.log(f"{self.name}/{kind}/{system}", value, batch_size=1, sync_dist=True)
        module.log(f"{self.name}/skipped", float(skipped), batch_size=1, sync_dist=True, reduce_fx="sum")


def _charts(names: Sequence[str], rates: Sequence[int]) -> dict:
    """TensorBoard's custom scalars; it keeps one layout per run, so the losses' charts have their place here too."""
    categories = {}
    for name in names:
        for kind, (lower, upper) in {"chroma": ("shuffled", "no_op"), "clap": ("no_op", "text_only")}.items():
            everything = [f"^{name}/{kind}/{system}$" for system in SYSTEMS]
            between = [f"{name}/{kind}/{system}" for system in ("edited", lower, upper)]
            categories[f"{name}: {kind}"] = {
                f"{kind} of {', '.join(SYSTEMS)}": ["Multiline", everything],
                f"{kind} of edited, between {lower} and {upper}": ["Margin", between],
            }
    categories["validation loss with the matched and with a shuffled audio prompt"] = {
        f"omega {omega}": ["Multiline", [f"^val/loss_{kind}_omega_{omega}$" for kind in ("matched", "shuffled")]]
        for omega in rates
    }
    return categories
