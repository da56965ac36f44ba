"""Groups the members of a shard to samples, and refuses unsafe or incomplete ones.

The indexed and the streaming reader share these rules; a member's payload is the place of its bytes, or the bytes.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Generic, NamedTuple, TypeVar

from apa_lightning.audio import OTHER_SUFFIXES
from datamodules.shards.index import AUDIO_EXTENSIONS

# Webdataset's default decoders open these with pickle or torch.load, so a sample that carries one is not trusted.
EXECUTABLE_EXTENSIONS = frozenset(
    {"pyd", "pkl", "pickle", "pck", "p", "pt", "pth", "ckpt", "bin", "joblib", "dill", "npy", "npz", "ten", "tb"}
    | {"so", "dll", "exe", "sh", "py"}
)

PROMPT = "prompt."
"""`<key>.prompt.flac` is the audio prompt of `<key>.flac`: another recording, parallel in time."""

_AUDIO = frozenset(AUDIO_EXTENSIONS)
_PROMPTS = frozenset(PROMPT + extension for extension in AUDIO_EXTENSIONS)
_UNREAD_PROMPTS = frozenset(PROMPT + suffix[1:] for suffix in OTHER_SUFFIXES)

Payload = TypeVar("Payload")

_DOT = "dot in a key"
_DOT_DETAIL = (
    "'{}' belongs to '{}', because a key ends at its first dot: keys that differ only behind a dot are one sample. "
    "Write another character in place of the dot"
)


@dataclass(frozen=True)
class Fault:
    """A sample that is not delivered, and why.

    Attributes:
        shard: Name of the shard.
        key: Key of the sample; "" for a part of the shard.
        reason: One of a few fixed texts, for counting.
        detail: What the reason does not say.
        kept: Whether the sample is delivered all the same, such as digital silence.
    """

    shard: str
    key: str
    reason: str
    detail: str = ""
    kept: bool = False


class Group(NamedTuple, Generic[Payload]):
    """One sample's members, not decoded yet.

    Attributes:
        shard: Name of the shard.
        key: Key of the sample.
        extension: Of `audio`.
        audio: The target.
        metadata: The JSON.
        audio_prompt: Audio prompt other than the target, if there is one.
        prompt_extension: Of `audio_prompt`; "" without one.
    """

    shard: str
    key: str
    extension: str
    audio: Payload
    metadata: Payload
    audio_prompt: Payload | None = None
    prompt_extension: str = ""

    @property
    def members(self) -> tuple[Payload, ...]:
        """The members that are there."""
        return (self.audio, self.metadata, *(() if self.audio_prompt is None else (self.audio_prompt,)))


class BadSample(Exception):
    """Raised while a sample is read: `reason` for counting, `detail` for the report."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


LOST = "lost in a damaged tar"
_PLAIN = re.compile(r"([A-Za-z0-9_-]+)\.([a-z0-9]+(?:\.[a-z0-9]+)*)")


def split_name(name: str) -> tuple[str, str]:
    """Split `folder/key.seg.FLAC` into (`folder/key`, `seg.flac`): by WebDataset's rule the key ends at the first dot.

    Raises:
        BadSample: If the name is absolute, leaves the shard with `..`, or has no key or extension.
    """
    if plain := _PLAIN.fullmatch(name):  # as nearly all names are; a path costs ten times as much
        return plain[1], plain[2]
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or name[1:2] == ":":
        raise BadSample("unsafe member name", f"'{name}' leaves the shard; it is not read")
    stem, dot, extension = path.name.partition(".")
    if not stem or not dot or not extension:
        raise BadSample("member without key or extension", f"'{name}'")
    return str(path.with_name(stem)), extension.lower()


def group_members(shard: str, members: Iterable[tuple[str, bool, Payload] | Fault]) -> Iterator[Group[Payload] | Fault]:
    """Join neighboring members of one key to samples, in their order.

    Args:
        shard: The shard's name, for the report.
        members: (name, whether it is a regular file, payload), without folders; faults are passed on.

    Yields:
        A `Group` for each key with exactly one audio and one JSON member and at most one audio prompt, and a `Fault` for
        everything else: links and devices, unsafe names, keys that come again after another key, members that could run
        code. Other audio that a dot adds to a whole sample (`a.flac`, `a.remix.flac`) is not read; one last remark names it.
    """
    seen: set[str] = set()
    unread: list[Fault] = []
    key, files = "", {}  # type: tuple[str, dict[str, Payload]]
    broken: Fault | None = None

    def finish() -> Iterator[Group[Payload] | Fault]:
        if key:
            found = broken or _to_group(shard, key, files)
            if isinstance(found, Group) and not unread and (dotted := _dotted_audio(files)):
                unread.append(Fault(shard, key, _DOT, _DOT_DETAIL.format(f"{key}.{dotted}", key), kept=True))
            yield found

    for member in members:
        if isinstance(member, Fault):
            yield member
            continue
        name, regular, payload = member
        try:
            new_key, extension = split_name(name)
        except BadSample as bad:
            yield Fault(shard, name, bad.reason, bad.detail)
            continue
        if new_key != key:
            yield from finish()
            key, files, broken = new_key, {}, None
            if key in seen:
                detail = (
                    _DOT_DETAIL.format(name, key) if "." in extension else "it comes again after another key's members"
                )
                broken = Fault(shard, key, "duplicate key", detail)
            seen.add(key)
        if not regular:
            broken = broken or Fault(shard, key, "link or device member", f"'{name}' is not followed")
        elif extension.rpartition(".")[2] in EXECUTABLE_EXTENSIONS:
            broken = broken or Fault(shard, key, "member that could run code", f"'{name}' is never opened")
        elif extension in files:
            broken = broken or Fault(shard, key, "duplicate key", f"'{name}' comes twice")
        else:
            files[extension] = payload
    yield from finish()
    yield from unread


def _to_group(shard: str, key: str, files: dict[str, Payload]) -> Group[Payload] | Fault:
    audio = [name for name in files if name in _AUDIO]
    prompts = [name.removeprefix(PROMPT) for name in files if name in _PROMPTS]
    if not audio:
        if dotted := _dotted_audio(files):
            return Fault(shard, key, _DOT, _DOT_DETAIL.format(f"{key}.{dotted}", key))
        there = ", ".join(sorted(files)) or "nothing"
        return Fault(shard, key, "sample without audio", f"it has {there}; read are {', '.join(AUDIO_EXTENSIONS)}")
    if len(audio) > 1:
        return Fault(shard, key, "sample with several audio files", ", ".join(audio))
    if len(prompts) > 1:
        return Fault(shard, key, "sample with several audio prompts", ", ".join(PROMPT + end for end in prompts))
    if unread := _UNREAD_PROMPTS.intersection(files):
        detail = f"'{key}.{min(unread)}'; read are {', '.join(AUDIO_EXTENSIONS)}"
        return Fault(shard, key, "audio prompt in another format", detail)
    if "json" not in files:
        return Fault(shard, key, "sample without JSON", f"'{key}.json' does not stand next to '{key}.{audio[0]}'")
    prompt = prompts[0] if prompts else ""
    return Group(shard, key, audio[0], files[audio[0]], files["json"], files.get(PROMPT + prompt), prompt)


def _dotted_audio(files: Iterable[str]) -> str:
    """The first extension of audio that holds a dot and is not a prompt's, such as `remix.flac`; empty if there is none."""
    dotted = (name for name in files if "." in name and name.rpartition(".")[2] in AUDIO_EXTENSIONS)
    return next((name for name in dotted if name.rpartition(".")[0] + "." != PROMPT), "")
