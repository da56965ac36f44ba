"""Rows of an evaluation that never was, with scores as a test wants them."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from apa_lightning import metrics
from apa_lightning.evaluation.rows import EvaluationRow, columns_for
from apa_lightning.pocket import TargetRecognized

#: The columns of configs/evaluate.yaml.
METRICS = columns_for(
    [
        metrics.ClapScore(), metrics.DeltaClap(), metrics.DirectionalClap(), metrics.ChromaSimilarity(),
        metrics.PitchAccuracy(), metrics.CqtCorrelation(), metrics.OnsetF1(), metrics.BeatF1(),
        metrics.LoudnessCorrelation(), metrics.Lpaps(), metrics.SeamLevel(), metrics.SeamSpectrum(), TargetRecognized(),
    ]
)  # fmt: skip

POINT = {
    "ap_scale": 0.5, "time_pooling": 2, "freq_pooling": 2, "guidance_scale": 7.5, "num_inference_steps": 50,
    "strength": 1.0, "scheduler": "DDIMScheduler", "seed": 0,
}  # fmt: skip
GRID = {
    "time_pooling": (1, 2, 4, 8),
    "ap_scale": (0.2, 0.35, 0.65, 0.8),
    "guidance_scale": (1.5, 3.5, 5.0, 10.0),
}
STRENGTHS = (0.5, 0.7, 0.9)


def row(
    task: str, system: str, number: int, figures: Mapping[str, float], knobs: Mapping[str, Any] | None = None
) -> EvaluationRow:
    """The edit of source ``number``; two edits share a source."""
    instrument, target = ("piano", "violin") if number % 2 else ("flute", "organ")
    name = f"{instrument}_{number // 2}"
    edit = f"{name}-to-{target}"
    about = {
        "id": edit, "task": task, "system": system, "set": "made up", "source": f"source_{number // 2}",
        "instrument": instrument, "target": target, "prompt": f"a recording of a {target} solo",
        "negative_prompt": f"a recording of the {instrument} solo", "score_text": target,
        "audio": f"audio/{task}/no_op/{edit}.wav", "output": f"audio/{task}/{system}/{edit}.wav",
    }  # fmt: skip
    return EvaluationRow(about, dict(POINT if knobs is None else knobs), dict(figures), METRICS)


def rows_of(
    system: str, figures: Callable[[int], Mapping[str, float]], count: int = 20, task: str = "timbre", **knobs: Any
) -> list[EvaluationRow]:
    """``count`` edits of a system, their figures by number."""
    pooling = {"freq_pooling": knobs["time_pooling"]} if "time_pooling" in knobs else {}
    return [row(task, system, i, figures(i), {**POINT, **knobs, **pooling}) for i in range(count)]


def noise(number: int) -> float:
    """The same for all systems of an edit, so that paired differences are free of it."""
    return 0.03 * math.sin(7.3 * number)


def swept(
    transfer: Mapping[str, float], fidelity: Mapping[str, float], count: int = 20, task: str = "timbre"
) -> list[EvaluationRow]:
    """The adapter at its point and with each knob of :data:`GRID` varied.

    Args:
        transfer: slope of CLAP by knob, over log2 of ``time_pooling`` and the other knobs themselves. fidelity: of chroma
            and melody.
    """

    def figures(knob: str, value: float) -> Callable[[int], Mapping[str, float]]:
        scale = math.log2 if knob == "time_pooling" else float
        step = scale(value) - scale(POINT[knob])
        more, less = transfer.get(knob, 0.0) * step, fidelity.get(knob, 0.0) * step
        return lambda i: {
            "clap": 0.3 + more + noise(i),
            "chroma": 0.7 + less + noise(i + 1),
            "chroma_floor": 0.48,
            "melody": 0.5 + less + noise(i + 2),
            "melody_floor": 0.1,
        }

    made = rows_of("adapter", figures("ap_scale", 0.5), count, task)
    for knob, values in GRID.items():
        for value in values:
            made += rows_of(f"adapter {knob}={value:g}", figures(knob, value), count, task, **{knob: value})
    return made
