"""Table of a run: the parts of the model and their parameters."""

from typing import Any

from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities.rank_zero import rank_zero_info


class ParameterTable(ModelSummary):
    """Logs the parts of the model with their parameters when training starts.

    Lightning's own table ends with "Total FLOPs: 0" for models without an example input.
    """

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        *_: Any,
        **__: Any,
    ) -> None:
        """Log the table, and how many parameters are trained."""
        columns = dict(summary_data)
        rows = list(zip(*(columns[name] for name in ("Name", "Type", "Params", "Mode")), strict=True))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        rank_zero_info(
            "Parts of the model:\n%s\n%s of %s parameters are trained; all take %.0f MB.",
            "\n".join(f"  {line.rstrip()}" for line in lines),
            f"{trainable_parameters:,}",
            f"{total_parameters:,}",
            model_size,
        )
