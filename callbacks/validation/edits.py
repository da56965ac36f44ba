"""The edits that the validation callbacks share: held-out clips are picked and edited once for all of them."""

import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy

from apa_lightning.audio import to_mono
from apa_lightning.editing.prompt_inputs import probe_prompts
from apa_lightning.editing.request import EditRequest, EditResult
from apa_lightning.errors import InputError
from apa_lightning.metrics import unmeasurable
from apa_lightning.module import AudioPromptModule
from apa_lightning.utils.lightning_compat import callbacks_of
from callbacks.validation.plan import HeldOutClip, PlannedEdit, ValidationPlan, own_targets

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ValidationEdit:
    """The results of one planned edit: with the recording, and from the text alone."""

    plan: PlannedEdit
    edited: EditResult
    text_only: EditResult


class ValidationEdits:
    """Held-out clips of one plan and their edits, made once per step and weights.

    The clips are picked from the batches of the first validation and stay the same for the whole run. The results of the
    text alone depend on no trained weight, so they are made once. All randomness comes from the requests' seeds.
    """

    def __init__(self, plan: ValidationPlan):
        self.plan = plan
        self._keys: set[str] = set()
        self._kinds: Counter[str] = Counter()
        self._candidates: list[tuple[tuple[bool, int, int], HeldOutClip]] = []
        self._planned: list[PlannedEdit] | None = None
        self._made_for: tuple[int, str] | None = None
        self._made: list[ValidationEdit] = []

    def observe(self, batch: Mapping[str, Any], module: AudioPromptModule) -> None:
        """Consider the clips of a validation batch for editing; showing it again changes nothing."""
        if self._planned is not None or "waveform" not in batch:
            return
        waveforms = batch["waveform"]
        labels = batch.get("labels") or [[]] * len(waveforms)
        lengths = batch.get("num_samples") or [waveform.shape[-1] for waveform in waveforms]
        for key, padded, names, length in zip(batch["key"], waveforms, labels, lengths, strict=True):
            waveform = padded[..., :length]
            if key in self._keys:
                continue
            self._keys.add(key)
            if why := unmeasurable(to_mono(waveform), module.backbone.sample_rate):
                log.warning("validation edits: clip %s is left out: it %s.", key, why)
                continue
            own = own_targets(names, self.plan.targets)
            kind = own[0] if own else "/".join(names)
            # Known ones first, then one of each kind, then as they come.
            rank = (not own, self._kinds[kind], len(self._keys))
            self._kinds[kind] += 1
            self._candidates.append((rank, HeldOutClip(key, waveform.float().cpu().clone(), names)))
        self._candidates = sorted(self._candidates, key=lambda candidate: candidate[0])[: self.plan.num_clips]

    def edits(self, trainer: L.Trainer, module: AudioPromptModule) -> list[ValidationEdit]:
        """Edit with the weights as they are now, or return what was edited with them before."""
        if self._planned is None:
            clips = [clip for _, clip in self._candidates]
            if not clips:
                log.warning("validation edits: no validation batch held a usable waveform; there is nothing to edit.")
            backbone = module.backbone
            self._planned = self.plan.edits(clips, backbone.sample_rate, trainer.global_rank, backbone.sampling)
        made_for = (trainer.global_step, module.adapter.digest())
        if self._made_for != made_for:
            alone = [edit.text_only for edit in self._made]
            requests = [plan.edited for plan in self._planned]
            if not alone:
                requests += [plan.text_only for plan in self._planned]
            # Hooks run outside of the precision's autocast, which a half-precision backbone needs.
            with trainer.precision_plugin.val_step_context():
                results = self._generate(module, requests)
            edited, alone = results[: len(self._planned)], alone or results[len(self._planned) :]
            self._made = [ValidationEdit(*parts) for parts in zip(self._planned, edited, alone, strict=True)]
            self._made_for = made_for
        return self._made

    def _generate(self, module: AudioPromptModule, requests: Sequence[EditRequest]) -> list[EditResult]:
        clock = time.perf_counter()
        # Few edits, with shapes that training does not have: compiling a U-Net for them would cost more than it saves.
        with torch.compiler.set_stance("force_eager"):
            results = module.editor().edit(requests, batch_size=self.plan.batch_size, progress=False)
        log.info("validation edits: %d in %.1f s", len(requests), time.perf_counter() - clock)
        return results


class EditsCallback(L.Callback, ABC):
    """Runs :meth:`on_edits` at the end of every ``every_n_validations``-th validation; the sanity check is left out.

    Args:
        plan: Clips to edit, and the settings of the edits.
        every_n_validations: Number of validations from one with edits to the next; the first one has edits.
        during_sanity_check: Edit also in the sanity check before training; the clips are then picked from its batches.
    """

    #: Whether processes other than the first one edit clips of their own.
    every_process = True
    #: Tells callbacks of the same class apart, in checkpoints too.
    name: str

    def __init__(
        self, plan: ValidationPlan = ValidationPlan(), every_n_validations: int = 1, during_sanity_check: bool = False
    ):
        if every_n_validations < 1:
            raise InputError(f"every_n_validations: {every_n_validations}; give 1 or more.")
        self.plan, self.every_n_validations, self.during_sanity_check = plan, every_n_validations, during_sanity_check
        self.validations = 0
        self._edits = ValidationEdits(plan)

    @property
    def state_key(self) -> str:
        return f"{type(self).__qualname__}{dict(name=self.name)}"

    @abstractmethod
    def on_edits(self, trainer: L.Trainer, module: AudioPromptModule, edits: list[ValidationEdit]) -> None:
        """Use the edits of this process; a subclass defines it."""

    def _due(self, trainer: L.Trainer) -> bool:
        if trainer.sanity_checking:
            return self.during_sanity_check
        return self.validations % self.every_n_validations == 0 and (self.every_process or trainer.is_global_zero)

    def _shared(self, trainer: L.Trainer) -> ValidationEdits:
        """The edits of the first of the callbacks with this plan."""
        return next(
            one._edits for one in callbacks_of(trainer) if isinstance(one, EditsCallback) and one.plan == self.plan
        )

    def setup(self, trainer: L.Trainer, pl_module: AudioPromptModule, stage: str) -> None:
        """Refuse settings before training that would fail at its first validation."""
        self._edits = ValidationEdits(self.plan)
        pl_module.configure_model()  # Lightning would call it after the callbacks' setup
        try:
            for problem in pl_module.editor().problems(self.plan):
                raise problem
            probe_prompts(self.plan)
        except (InputError, FileNotFoundError) as error:
            raise InputError(f"plan.{error}") from None
        if isinstance(trainer.strategy, FSDPStrategy | ModelParallelStrategy):
            raise InputError(
                f"trainer.callbacks: {type(self).__name__} edits in each process by itself, which sharded weights do "
                "not allow. Leave it out, or use --trainer.strategy ddp."
            )

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0) -> None:
        if self._due(trainer):
            self._shared(trainer).observe(batch, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: AudioPromptModule) -> None:
        if self._due(trainer):
            self.on_edits(trainer, pl_module, self._shared(trainer).edits(trainer, pl_module))
        self.validations += not trainer.sanity_checking

    def state_dict(self) -> dict[str, int]:
        return {"validations": self.validations}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.validations = state_dict["validations"]
