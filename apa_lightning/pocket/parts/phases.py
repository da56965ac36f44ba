"""The curriculum of the U-Net's training."""

from collections.abc import Sequence
from dataclasses import dataclass

from apa_lightning.conditioning.pooling import POOLING_RATES
from apa_lightning.pocket.parts.part import check, share

TIMESTEPS = 1000


@dataclass(frozen=True)
class Phase:
    """Conditions and timesteps of the training items of some steps.

    Attributes:
        until: The first optimizer step after the phase; null: to the end.
        true_audio: Share of batches whose language-of-audio stream is AudioMAE's tokens of the clip itself; in the others
            it is generated from the prompt.
        adapted: Share of batches whose stream is generated, and whose tokens an adapter reads beside it.
        paired: Share of the batches with tokens that have those of the clips' audio prompts instead, where they have one. An
            item that keeps them keeps its prompt, which alone tells what they do not.
        rates: Pooling rates omega of true tokens, one drawn for each batch; they must be among 1, 2, 4, 8.
        text: Share of items that keep their prompt; the others have the streams of the empty prompt.
        audio: Share of items that keep their true tokens; the others have zeros.
        timesteps: Lowest and highest timestep.
    """

    until: int | None = None
    true_audio: float = 0.7
    adapted: float = 0.0
    paired: float = 0.0
    rates: Sequence[int] = POOLING_RATES
    text: float = 0.9
    audio: float = 0.95
    timesteps: tuple[int, int] = (0, TIMESTEPS - 1)

    def __post_init__(self) -> None:
        rule = "give the first step after the phase, or null."
        check("phases.until", self.until, self.until is None or self.until >= 1, rule)
        for name in ("true_audio", "adapted", "paired", "text", "audio"):
            share(f"phases.{name}", getattr(self, name))
        check("phases.rates", "empty", bool(self.rates), "give one or more of 1, 2, 4, 8.")
        for rate in self.rates:
            check("phases.rates", rate, rate in POOLING_RATES, "choose one of 1, 2, 4, 8.")
        low, high = self.timesteps
        rule = f"give the lowest and the highest of 0 to {TIMESTEPS - 1}."
        check("phases.timesteps", list(self.timesteps), 0 <= low <= high < TIMESTEPS, rule)


def ordered(phases: Sequence[Phase]) -> tuple[Phase, ...]:
    """The phases, checked to follow each other."""
    check("phases", "empty", bool(phases), "give at least one phase.")
    ends = [phase.until for phase in phases]
    known = [end for end in ends if end is not None]
    rule = "give the step at which the next phase starts."
    check("phases.until", "null before the last phase", None not in ends[:-1], rule)
    check("phases.until", known, known == sorted(set(known)), "each phase must end later than the one before.")
    return tuple(phases)


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase that holds at an optimizer step, the last one beyond all ends."""
    return next((phase for phase in phases if phase.until is None or step < phase.until), phases[-1])
