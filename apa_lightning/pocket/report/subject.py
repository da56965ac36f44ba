"""The clips, folder and seed that a part of the report is measured with."""

from dataclasses import dataclass, field
from pathlib import Path

from apa_lightning.pocket.report.clips import Clips
from apa_lightning.pocket.report.proof import Proof
from apa_lightning.pocket.report.scores import Score, Values


@dataclass(frozen=True)
class Subject:
    """A pocket folder and the clips on which its parts are measured."""

    folder: Path  # Folder of a pocket backbone
    clips: Clips  # Held-out clips with prompts, labels and metadata
    seed: int = 0  # Seed of draws, intervals and untrained parts
    pictures: Path | None = None  # Folder for pictures
    recordings: Clips | None = None  # Windows of real recordings
    windows: Clips | None = None  # Windows of real recordings that the proof edits; they may overlap
    proof: Proof = field(default_factory=Proof)  # Settings of the proof

    @property
    def adapter(self) -> str | None:
        """The adapter that the proof is about: a file, or None for an untrained copy."""
        own = self.folder / "adapter.safetensors"
        return self.proof.adapter if self.proof.adapter != "auto" else str(own) if own.is_file() else None

    def score(
        self,
        part: str,
        name: str,
        values: Values,
        untrained: Values | float | None = None,
        compared: dict[str, float] | None = None,
        target: str = "",
    ) -> Score:
        """The score of one value per clip; the arguments are those of :meth:`Score.of`."""
        return Score.of(part, name, values, self.seed, untrained, compared=compared or {}, target=target)
