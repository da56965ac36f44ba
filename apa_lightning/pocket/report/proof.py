"""Settings of the proof that the adapter edits."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError

#: What SDEdit shares with the adapter's first point: all that is not about the audio prompt.
OF_TEXT = ("negative_prompt", "guidance_scale", "text_guidance_scale", "num_inference_steps", "scheduler")
_KNOBS = ("negative_prompt", *EditSettings.operating_point())


@dataclass
class Proof:
    """Systems, operating points and sizes of the parts ``editing`` and ``imitation``. An edit of 25 steps takes about 2 s of one core.

    Raises:
        InputError: If a knob is unknown or out of its range, or a number is too small.
    """

    adapter: str | None = "auto"
    """Adapter file; auto: the model folder's own where there is one; null: none, only the copy of the text K/V is tried."""
    trials: int = 32
    """Edits of held-out melodies per operating point."""
    recorded: int = 24
    """Edits of windows of real recordings per operating point."""
    windows: int = 3
    """Windows of one recording. They overlap, by three quarters at most, if it is too short for so many."""
    num_inference_steps: int | None = None
    """Denoising steps of all edits; null: the backbone's default."""
    points: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    """Operating points of the adapter and of its untrained copy: knobs of an edit, the others at their defaults. The first is the
    one of the table, and the recognition at which systems are compared."""
    strengths: list[float] = field(default_factory=lambda: [0.5, 0.6, 0.7, 0.8, 0.9])
    """Strengths of SDEdit; text alone is its last point."""
    genre_trials: int = 16
    """Edits per operating point of genre transfer, on the first held-out melodies; 0: none."""
    genre_points: list[dict[str, Any]] = field(default_factory=lambda: [{"time_pooling": 1, "ap_scale": 0.4}])
    """Operating points of genre transfer, of which the best mixture with enough of the melody counts."""
    sound_adapter: str | None = "auto"
    """Adapter of the part ``imitation`` that reads the reference; auto: timbre.safetensors of the model folder."""
    sound_points: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"audio_prompts": [{}, {"adapter": 1, "audio": "reference", "time_pooling": 16}]},
        ]
    )
    """Operating points of the part ``imitation``. Of their ``audio_prompts``, ``audio: reference`` is the trial's reference."""

    def __post_init__(self) -> None:
        for name, least in {"trials": 2, "recorded": 2, "windows": 1, "genre_trials": 0}.items():
            if getattr(self, name) < least:
                raise InputError(f"model.proof.{name}: {getattr(self, name)}; give {least} or more.")
        for name in ("adapter", "sound_adapter"):
            file = getattr(self, name)
            if file not in (None, "auto") and not Path(str(file)).is_file():
                raise InputError(f"model.proof.{name}: {file} is not a file; give one, auto or null.")
        points = {name: getattr(self, name) for name in ("points", "genre_points", "sound_points")}
        points |= {"num_inference_steps": [{"num_inference_steps": self.num_inference_steps}]}
        points |= {"strengths": [{"strength": value} for value in self.strengths]}
        for name, given in points.items():
            if not given:
                raise InputError(f"model.proof.{name}: empty; give at least one value.")
            for knob, value in (pair for point in given for pair in point.items()):
                if knob not in _KNOBS:
                    raise InputError(f"model.proof.{name}: {knob!r} is not a knob; choose from {', '.join(_KNOBS)}.")
                try:
                    EditSettings.check(knob, value)
                except InputError as error:
                    raise InputError(f"model.proof.{name}: {error}") from None
