"""Suggestions for a flag that does not exist: the nearest one that does."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

_UNKNOWN = re.compile(r"^(?:unrecognized arguments: )?(?P<flag>--[\w.]+)(?P<rest>: is not a setting)?")


def with_suggestion(message: str, parser: Any) -> str:
    """The message about an unknown flag, with the nearest one of ``parser``; another message as it is."""
    match = _UNKNOWN.match(message)
    if match is None or not (match["rest"] or message.startswith("unrecognized")):
        return message
    flag, section = match["flag"], match["flag"].partition(".")[0]
    known = set(_flags(parser))
    told = f"{flag}: is not a setting"
    if flag in known:  # a setting of the usual class, but without a configuration there is no class
        return f"{told} of this command without a configuration that names the class of {section}; add --config FILE."
    near = get_close_matches(flag, known, n=1, cutoff=0.75)
    return f"{told}; did you mean {near[0]}?" if near else f"{told}; --help lists them."


def command_of(parser: Any, arguments: Sequence[str]) -> Any:
    """The parser of the command that the arguments name, else ``parser`` itself."""
    commands = next((action.choices for action in parser._actions if isinstance(action.choices, dict)), {})
    return next((commands[argument] for argument in arguments if argument in commands), parser)


def _flags(parser: Any) -> Iterator[str]:
    """Every flag of a parser, of the classes it shows, and of its subcommands."""
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))
        if isinstance(action.choices, dict):
            for command in action.choices.values():
                yield from _flags(command)
    if getattr(parser, "shown", None):
        yield from _flags(parser.class_settings())
