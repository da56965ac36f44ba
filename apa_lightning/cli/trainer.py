"""The Trainer of the command line: Lightning's, and the commands that evaluate."""

from typing import Any

import lightning as L

from apa_lightning.module import AudioPromptModule


class Trainer(L.Trainer):
    """Lightning's Trainer with ``evaluate``, ``sweep`` and ``findings``; all three are ``predict`` with several systems."""

    def evaluate(
        self,
        model: AudioPromptModule,
        datamodule: Any,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Edit a set by several systems side by side and measure them: tables, plots, a page to listen to.

        Args:
            model: of the adapter.
            datamodule: a ``datamodules.EvaluationDataModule``.
            ckpt_path: checkpoint of a training run whose adapter is evaluated; or give --model.adapter.
            weights_only: checkpoints load without executing anything.
        """
        model.edit_by = datamodule.edit
        self.predict(
            model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=weights_only, return_predictions=False
        )

    def sweep(
        self,
        model: AudioPromptModule,
        datamodule: Any,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Try values of the knobs on a task (Fig. 2) and pick an operating point from them.

        Args:
            model: of the adapter.
            datamodule: a ``datamodules.EvaluationDataModule``.
            ckpt_path: checkpoint of a training run whose adapter is evaluated; or give --model.adapter.
            weights_only: checkpoints load without executing anything.
        """
        self.evaluate(model, datamodule, ckpt_path, weights_only)

    def findings(
        self,
        model: AudioPromptModule,
        datamodule: Any,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Check the six findings of the paper, with a verdict for each from intervals.

        Args:
            model: of the adapter.
            datamodule: a ``datamodules.EvaluationDataModule``.
            ckpt_path: checkpoint of a training run whose adapter is evaluated; or give --model.adapter.
            weights_only: checkpoints load without executing anything.
        """
        self.evaluate(model, datamodule, ckpt_path, weights_only)
