"""Texts, names and URLs that would be programs to a shell, to Python or to a template."""

import builtins
from collections.abc import Callable

import jinja2
from bad_inputs.room import Room
from markers import leave
from omegaconf import OmegaConf

from payloads.base import (
    WORD,
    Payload,
    Prepared,
    Unsafe,
    runs,
)
from payloads.settings import resolves


def shell_url(room: Room) -> Prepared:
    """A URL that ends what a careless shell command puts into quotes. Nobody answers there."""
    url = f"http://127.0.0.1:9/'; {WORD}; '.tar"
    return room.fit("--data.train_shards", f'["{url}"]'), runs(f"echo '{url}'", room)


def shell_shard(room: Room) -> Prepared:
    """A shard whose name is a command for a shell that does not quote it."""
    shard = room.shard(name=f"0; {WORD}; .tar")
    return room.fit("--data.train_shards", f"['{shard}']"), runs(f"cat {shard}", room)


TEXTS = {
    "shell": f"$({WORD})",
    "shell_separator": f"; {WORD} ;",
    "backticks": f"`{WORD}`",
    "python": "leave('CANARY')",
    "template": "{{ leave('CANARY') }}",
    "interpolation": "${leave:CANARY}",
}


def knows_leave() -> None:
    """In this process `leave` has a meaning to Python, to templates and to interpolations: who evaluates a text finds it."""
    builtins.leave = leave  # type: ignore[attr-defined]
    jinja2.defaults.DEFAULT_NAMESPACE["leave"] = leave
    OmegaConf.register_resolver("leave", leave, replace=True)


def careless_text(text: str, name: str, room: Room) -> Unsafe:
    if name == "template":
        return lambda: jinja2.Template(text).render(leave=leave)
    if name == "interpolation":
        return lambda: resolves(text)
    return (lambda: leave(f"{room.path}/canary")) if name == "python" else runs(f"echo {text}", room)


def said(name: str, column: str) -> Callable[[Room], Prepared]:
    """A manifest's field that is a program in one language or another."""

    def prepare(room: Room) -> Prepared:
        text = TEXTS[name].replace("CANARY", f"{room.path}/canary")
        line = {"audio": "a.wav", "prompt": "x", "id": "a"} | {column: text}
        return room.lines(line), careless_text(text, name, room)

    return prepare


def in_csv(room: Room) -> Prepared:
    """All texts as prompts of a CSV, and a spreadsheet's formula."""
    texts = [text.replace("CANARY", f"{room.path}/canary") for text in TEXTS.values()]
    lines = ["audio,prompt,id", *(f'a.wav,"{text}",{number}' for number, text in enumerate(texts))]
    lines.append(f"a.wav,=leave({WORD}),formula")
    return room.predict("--data.manifest", room.manifest(*lines, name="edits.csv")), runs(f"echo {texts[0]}", room)


def shell_name(name: str) -> Callable[[Room], Prepared]:
    """A recording whose name would be a command to a shell that does not quote it."""

    def prepare(room: Room) -> Prepared:
        room.recording(f"in/{name}.wav")
        return room.folder(), runs(f"cat {name}.wav", room)

    return prepare


NAMES = [
    *(Payload(f"{name} as a prompt", said(name, "prompt")) for name in TEXTS),
    *(Payload(f"{name} as an output's name", said(name, "id")) for name in ("shell_separator", "backticks")),
    *(Payload(f"{name} as a scheduler", said(name, "scheduler"), "scheduler") for name in ("python", "shell")),
    Payload("prompts of a CSV, a formula", in_csv),
    *(Payload(f"a recording named {name}", shell_name(name)) for name in (f"$({WORD})", f"; {WORD}; #")),
    Payload("a shard named as a command", shell_shard),
    Payload("a URL named as a command", shell_url, "127.0.0.1:9"),
]
