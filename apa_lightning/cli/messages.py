"""Messages of the command line: one for a mistake, and of libraries only those that a user can act on."""

import contextlib
import errno
import linecache
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import yaml
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf.errors import OmegaConfBaseException

from apa_lightning.cli.plain_text import load
from apa_lightning.errors import InputError

USER_ERRORS = (
    InputError,
    MisconfigurationException,
    FileNotFoundError,
    PermissionError,
    IsADirectoryError,
    NotADirectoryError,
)
#: Types in a user's words.
KINDS = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "a text",
    "list": "a list",
    "dict": "a mapping",
}
#: Flags of the running command by the bare names of its settings.
_flags: dict[str, str] = {}


@contextlib.contextmanager
def mistakes_told() -> Iterator[None]:
    """A user's mistake inside the block ends the program with one line and code 2; a bug keeps its traceback."""
    _flags.clear()
    try:
        yield
    except OmegaConfBaseException as error:
        fail(
            f"config: {str(error).splitlines()[0]} ({error.full_key or 'an interpolation'}). In a configuration ${{NAME}} means "
            "another setting; a manifest takes such text as it is."
        )
    except Exception as error:
        if (message := root_message(error)) is not None:
            fail(message)
        tell_the_system_fails(error)
        raise
    except KeyboardInterrupt:
        sys.exit(130)


def tell_the_system_fails(error: Exception) -> None:
    """End the program with one line where the disk is full or another process has gone."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        fail(f"{error.filename or 'output'}: {error.strerror}. Free space or choose another folder.")
    if isinstance(error, OSError) and error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
        fail(
            f"{error.filename or 'output'}: {error.strerror}. Choose a folder on a file system that has locks (flock)."
        )
    if not isinstance(error, RuntimeError):
        return
    if "clients joined" in str(error) or "trying to connect" in str(error):
        fail(
            "not all processes of this run have found each other. Start one on each machine, with an address and a port of the "
            f"first one that all of them reach (docs/machines.md). torch says: {str(error).splitlines()[0]}"
        )
    if re.search("closed by peer|reset by peer|communicator was aborted|Broken pipe|Timed out waiting", str(error)):
        fail(
            "another process of this run has ended or cannot be reached, and this one cannot go on alone. The other's message, "
            "if its machine still runs, says why. Start all processes again; fit resumes with --ckpt_path last."
        )


def fail(message: str) -> NoReturn:
    """Print the message, with its fields spelled as flags, and exit with 2."""
    print(f"error: {as_typed(message)}", file=sys.stderr)
    sys.exit(2)


def as_typed(message: str) -> str:
    """:func:`with_flags` with the flags of the running command."""
    return with_flags(message, _flags)


def with_whole_flags(message: str) -> str:
    """Spell the flags of a message as they were typed: the parser of a class knows only the rest, ``--backbone.init_args.folder``."""
    for rest in re.findall(r"--([\w.]+)", message):
        for flag in _flags.values():
            if flag.endswith(f".{rest}"):
                return re.sub(r"--(?=\w)", flag.removesuffix(rest), message)
    return message


def remember_typed_flags(args: Sequence[str]) -> None:
    """Keep the flags that were typed, for messages about a command line that cannot be parsed.

    The parser of a class comes later, with the rest of a flag: the whole one stays.
    """
    typed = (arg.partition("=")[0] for arg in args if arg.startswith("--"))
    for flag in typed:
        _flags.setdefault(flag.rpartition(".")[2].lstrip("-").rstrip("+"), flag)


def remember_flags(settings: Namespace) -> None:
    """Keep the flags of the running command by the bare names of its settings, for messages."""
    names = {name: f"--{name}" for name in vars(settings)}
    for section in ("trainer", "model", "data"):  # of two settings with one name the last one counts
        names.pop(section, None)
        part = settings.get(section)
        part = getattr(part, "init_args", part)
        if isinstance(part, Namespace):
            names |= {name: f"--{section}.{name}" for name in vars(part)}
    _flags.clear()
    _flags.update(names)


def with_flags(message: str, flags: Mapping[str, str]) -> str:
    """Spell the fields of a message, which start a line or stand in backticks, as flags."""

    def flag(match: re.Match) -> str:
        name = match["field"] or match["quoted"]
        return (
            match[0].replace((match["quoted"] and f"`{name}`") or name, flags[name], 1) if name in flags else match[0]
        )

    return re.sub(r"^ *(?P<field>\w+)(?=(\.\w+|\[\d+\])*: )|`(?P<quoted>\w+)`", flag, message, flags=re.MULTILINE)


def check_config_files(args: Sequence[str]) -> None:
    """Name the configuration file that is broken: jsonargparse says what is wrong, but not in which file."""
    for flag, value in zip(args, [*args[1:], ""], strict=False):
        name, _, joined = flag.partition("=")
        if name not in ("-c", "--config") or not (path := Path(joined or value)).is_file():
            continue
        try:
            content = load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"config: {path} is not plain YAML: {' '.join(str(error).split())}") from None
        if not isinstance(content, dict):
            raise InputError(
                f"config: {path} is empty or holds no settings; give 'section: {{key: value}}' as configs/base.yaml."
            )


def root_message(error: BaseException | None) -> str | None:
    """The message of the mistake that jsonargparse or Lightning may have wrapped into errors of their own."""
    # Of a list in a union, such as two loggers, jsonargparse keeps only the text.
    quoted = re.search(r"Problem with given class_path '([\w.]+)':\n((?:\s+(?!- )\S.*\n)+)", str(error))
    while error is not None:
        if isinstance(error, USER_ERRORS):
            return str(error)
        if is_said_by_lightning(error):
            return f"trainer: {' '.join(str(error).split())}"
        error = error.__cause__ or error.__context__
    return f"{quoted[1]}: {' '.join(quoted[2].split())}" if quoted else None


def is_said_by_lightning(error: BaseException) -> bool:
    """Whether Lightning itself raised the error, to say what of its settings cannot be; it has no class for such errors."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__) if error.__traceback__ else [(None, 0)]
    if frame is None or not str(frame.f_globals.get("__name__")).startswith(("lightning.", "lightning_utilities.")):
        return False
    return linecache.getline(frame.f_code.co_filename, line).strip().startswith("raise ")


def shortened(message: str) -> str:
    """The message of jsonargparse on one line, without the types it tried in vain and the settings it dumps."""
    noise = re.compile(
        r"Given value|Subtypes:|Errors:|Does not validate against any|Expected a path|Expected a <class '(NoneType|collections)"
    )
    lines = [line.strip(" -") for line in message.splitlines()]
    short = " ".join(dict.fromkeys(line for line in lines if line and not noise.match(line)))
    short = re.sub(r"^Parser key \"([\w.]+)\"", lambda key: f"--{key[1]}" if "." in key[1] else key[1], short)
    short = re.sub(
        r"^argument (\S+): expected one argument",
        r"\1: the value is missing; write one that starts with a dash as "
        "--option=VALUE",
        short,
    )
    short = re.sub(
        r"Expected an? <class '(\w+)'>\. Got value: (.*)",
        lambda words: f"{words[2]} is not {KINDS.get(words[1], f'of the type {words[1]}')}.",
        short,
    )
    if given := re.search(r"Given value: (.+)", message):  # of a type or null
        one = rf"Expected an? <class '({'|'.join(KINDS)})'>"

        def said(wanted: re.Match[str]) -> str:
            *others, last = (KINDS[kind] for kind in re.findall(one, wanted[0]))
            return f"{given[1]} is " + (f"neither {', '.join(others)} nor {last}." if others else f"not {last}.")

        short = re.sub(rf"(?:{one} ?)+$", said, short)
    short = re.sub(r"Expected an? <class 'tuple'>", "a list such as [0, 5] is needed", short)
    return re.sub(r"^Option '(\w+)' is not accepted", r"\1: is not a setting", short)


def quiet_libraries() -> None:
    """Leave to the screen what a user can act on."""
    logging.basicConfig(format="%(levelname)s: %(message)s")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(noise in record.getMessage() for noise in ("Tip:", "model summary callbacks"))
    )
    for pattern in (
        "You are trying to `self.log",  # a barebones Trainer was asked for
        ".*does not have many workers.*",  # a choice, documented in base.yaml
        r"Found \d+ module\(s\) in eval mode",  # the frozen parts are meant to be
        ".*treespec, LeafSpec.*",  # Lightning 2.6 against torch's newer name
        "Checkpoint directory .* exists and is not empty",  # that of a run that goes on
    ):
        warnings.filterwarnings("ignore", pattern)
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers")
