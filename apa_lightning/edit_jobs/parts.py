"""Parts of a long command, one for each task of a job array."""

import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from apa_lightning.errors import InputError

Item = TypeVar("Item")
SLURM = "slurm"


@dataclass(frozen=True, order=True)
class Part:
    """One of `of` equal parts; `number` counts from 1."""

    number: int
    of: int

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def read(cls, text: str | None) -> "Part | None":
        """Read the setting `part`: `3/16`, or `slurm` for the place of this task in SLURM's job array.

        An array is never taken into account without being asked for: its tasks may just as well differ in their data or seed.

        Raises:
            InputError: If it is neither, or there is no such part.
        """
        if text is None:
            return None
        if text.strip().lower() == SLURM:
            return cls._of_slurm()
        found = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
        if not found:
            raise InputError(f"part: '{text}' is not a part. Give its number and how many there are, such as 3/16.")
        number, of = int(found[1]), int(found[2])
        if not 1 <= number <= of:
            way_out = f"parts are counted from 1 to {of}" if of else "there must be at least one"
            raise InputError(f"part: '{text}' is not a part: {way_out}.")
        return cls(number, of)

    @classmethod
    def _of_slurm(cls) -> "Part":
        names = ("ID", "MIN", "MAX", "COUNT")
        values = [os.environ.get(f"SLURM_ARRAY_TASK_{name}", "") for name in names]
        if not all(value.isdecimal() for value in values):
            raise InputError(
                "part: slurm, but this is not a task of a SLURM array (SLURM_ARRAY_TASK_ID and the like are not set). "
                "Start it with sbatch --array=1-16, or give a part such as 3/16."
            )
        number, first, last, count = map(int, values)
        step = int(os.environ.get("SLURM_ARRAY_TASK_STEP") or 1)
        place, rest = divmod(number - first, step)
        if last - first != (count - 1) * step or rest or not 0 <= place < count:
            raise InputError(
                f"part: slurm, but the {count} tasks of the array, {first} to {last}, are not evenly numbered, so their places "
                "are unknown. Give the part itself, such as --part $SLURM_ARRAY_TASK_ID/16."
            )
        return cls(place + 1, count)

    def every(self, items: Sequence[Item]) -> list[Item]:
        """The items of this part, dealt in turn to all parts."""
        return list(items[self.number - 1 :: self.of])

    def stretch(self, items: Sequence[Item]) -> list[Item]:
        """The items of this part, neighbors in one stretch."""
        start, end = ((self.number - more) * len(items) // self.of for more in (1, 0))
        return list(items[start:end])

    def others(self) -> "list[Part]":
        """All parts except this one."""
        return [Part(number, self.of) for number in range(1, self.of + 1) if number != self.number]


def missing_parts(missing: Sequence[Part]) -> str:
    """Name parts that are not finished, and the command that makes the first of them."""
    named = ", ".join(map(str, missing[:20])) + (f" and {len(missing) - 20} more" if len(missing) > 20 else "")
    return f"Parts that are not finished yet: {named}. If no task is making them: {_command_for(missing[0])}"


def _command_for(part: Part) -> str:
    """The running command for another part, as it would be typed."""
    typed = shlex.join(sys.argv[1:])
    replaced, count = re.subn(r"(?<!\S)(--(?:data\.)?part[= ])\S+", rf"\g<1>{part}", typed)
    return f"python -m apa_lightning {replaced}" if count else f"the same command with --part {part}"
