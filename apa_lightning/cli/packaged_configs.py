"""Resolves ``--config pkg:NAME`` to a configuration file that comes with the package."""

from collections.abc import Sequence
from pathlib import Path

from apa_lightning.errors import InputError

PREFIX = "pkg:"
#: In a checkout this is a link to ``configs/``; in a wheel it is a copy of it.
FOLDER = Path(__file__).parents[1] / "configs"


def with_packaged_configs(args: Sequence[str]) -> list[str]:
    """Replace each ``--config pkg:NAME`` by the path of the packaged file.

    Args:
        args: Command line, for example ``["fit", "--config", "pkg:base.yaml", "--config=pkg:training/ema.yaml"]``.

    Returns:
        The command line with file names that any reader of configurations can open.

    Raises:
        InputError: If the package has no file of that name.
    """
    resolved = list(args)
    for i, argument in enumerate(args):
        flag, joined, value = argument.partition("=")
        if flag in ("-c", "--config") and joined:
            resolved[i] = f"{flag}={_path(value)}"
        elif argument in ("-c", "--config") and i + 1 < len(args):
            resolved[i + 1] = _path(args[i + 1])
    return resolved


def _path(name: str) -> str:
    if not name.startswith(PREFIX):
        return name
    names = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.yaml"))
    if (wanted := name.removeprefix(PREFIX)) not in names:
        raise InputError(f"--config {name}: is not a packaged configuration; give one of {', '.join(names)}.")
    return str(FOLDER / wanted)
