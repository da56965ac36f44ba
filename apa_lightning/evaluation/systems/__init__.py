"""Systems side by side: each on the same sources, prompts and seeds."""

from collections.abc import Callable, Sequence

from apa_lightning.errors import InputError
from apa_lightning.evaluation.systems.adapter import Adapter, NoNegative, SDEdit, TextOnly, Untrained
from apa_lightning.evaluation.systems.codec import Codec
from apa_lightning.evaluation.systems.musicgen_melody import MusicGenMelody
from apa_lightning.evaluation.systems.no_op import NoOp
from apa_lightning.evaluation.systems.system import System, SystemRequest

__all__ = ["Adapter", "SDEdit", "System", "SystemRequest", "make_systems"]

_SYSTEMS: dict[str, Callable[[], System]] = {
    one.name: one for one in (Adapter, NoNegative, TextOnly, SDEdit, Untrained, NoOp, Codec)
}


def make_systems(names: Sequence[str], musicgen: str | None = None) -> list[System]:
    """The systems by these names.

    Args:
        names: among ``adapter``, ``no_negative``, ``text_only``, ``sdedit``, ``untrained``, ``no_op``, ``codec`` and
            ``musicgen_melody``.
        musicgen: folder or hub id of the last one; given, it takes part without being named.

    Raises:
        InputError: an unknown or repeated name; MusicGen without its weights.
    """
    wanted = [*names, *([MusicGenMelody.name] if musicgen and MusicGenMelody.name not in names else [])]
    for name in wanted:
        if name not in _SYSTEMS and name != MusicGenMelody.name:
            raise InputError(
                f"--data.systems: {name!r} is unknown; choose from {', '.join([*_SYSTEMS, MusicGenMelody.name])}."
            )
        if wanted.count(name) > 1:
            raise InputError(f"--data.systems: {name} is there twice.")
    if not wanted:
        raise InputError("--data.systems: empty; give at least one.")
    if MusicGenMelody.name in wanted and not musicgen:
        raise InputError("--data.musicgen: is missing; musicgen_melody needs a folder or facebook/musicgen-melody.")
    return [MusicGenMelody(musicgen or "") if name == MusicGenMelody.name else _SYSTEMS[name]() for name in wanted]
