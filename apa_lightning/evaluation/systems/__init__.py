"""The systems that an evaluation compares, each on the same sources, prompts and seeds."""

from collections.abc import Callable, Sequence

from apa_lightning.errors import InputError
from apa_lightning.evaluation.systems.adapter import Adapter, NoNegative, SDEdit, TextOnly, Untrained
from apa_lightning.evaluation.systems.codec import Codec
from apa_lightning.evaluation.systems.ddpm_inversion import DDPMInversion
from apa_lightning.evaluation.systems.direct_audio_edit import DirectAudioEdit
from apa_lightning.evaluation.systems.musicgen_melody import MusicGenMelody
from apa_lightning.evaluation.systems.no_op import NoOp
from apa_lightning.evaluation.systems.system import System, SystemRequest

__all__ = [
    "DEFAULT",
    "Adapter",
    "DDPMInversion",
    "DirectAudioEdit",
    "SDEdit",
    "System",
    "SystemRequest",
    "make_systems",
]

_SYSTEMS: dict[str, Callable[[], System]] = {
    one.name: one
    for one in (Adapter, NoNegative, TextOnly, SDEdit, DDPMInversion, DirectAudioEdit, Untrained, NoOp, Codec)
}
#: Those of an evaluation that names none: the paper's tables and ablation, and the bounds. Inversions take much longer.
DEFAULT = tuple(one.name for one in (Adapter, NoNegative, TextOnly, SDEdit, NoOp, Codec))


def make_systems(wanted: Sequence[str | System], musicgen: str | None = None) -> list[System]:
    """The systems of an evaluation.

    Args:
        wanted: Systems, or names of those that come with the package: ``adapter``, ``no_negative``, ``text_only``, ``sdedit``,
            ``ddpm_inversion``, ``direct_audio_edit``, ``untrained``, ``no_op``, ``codec`` and ``musicgen_melody``.
        musicgen: Folder or hub id of ``musicgen_melody``; if it is given, that system takes part without being named.

    Raises:
        InputError: If a name is unknown or repeated, or if MusicGen lacks its weights.
    """
    if not wanted:
        raise InputError("systems: empty; give at least one.")
    melody = MusicGenMelody.name
    systems: list[System] = []
    for one in [*wanted, *([melody] if musicgen and melody not in wanted else [])]:
        if isinstance(one, str) and one not in (*_SYSTEMS, melody):
            raise InputError(f"systems: {one!r} is unknown; choose from {', '.join([*_SYSTEMS, melody])}.")
        if one == melody and not musicgen:
            raise InputError("musicgen: is missing; musicgen_melody needs a folder or facebook/musicgen-melody.")
        system = (
            one if isinstance(one, System) else MusicGenMelody(musicgen or "") if one == melody else _SYSTEMS[one]()
        )
        if system.name in [other.name for other in systems]:
            raise InputError(f"systems: {system.name} is there twice.")
        systems.append(system)
    return systems
