"""The index file next to a shard: the members that were written, their places and digests.

`name.tar` is a plain tar of `<key>.<audio>` and `<key>.json` members; `name.index.json` lists them:

    {"format": 1, "shard": "name.tar", "bytes": 123, "samples": 2,
     "members": [{"key": "a", "name": "a.flac", "offset": 512, "size": 99, "sha256": "..."}, ...]}

`offset` is where the member's data starts. The index is written last: a shard is finished when its index exists.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from apa_lightning.audio import AUDIO_SUFFIXES
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import write_file

AUDIO_EXTENSIONS = tuple(suffix[1:] for suffix in AUDIO_SUFFIXES)
"""The only audio members that are ever decoded; the metadata member ends in `json`."""

INDEX_FORMAT = 1


class Member(NamedTuple):
    """One file in a shard: its data is `size` bytes from `offset`; `sha256` is "" where it is not known."""

    key: str
    name: str
    offset: int
    size: int
    sha256: str = ""


@dataclass(frozen=True)
class ShardIndex:
    """What a shard holds: `bytes` is the tar's size, `samples` the number of different keys."""

    shard: str
    bytes: int
    samples: int
    members: tuple[Member, ...]


def index_path(shard: str | Path) -> Path:
    """`out/train-000000.tar` -> `out/train-000000.index.json`."""
    return Path(shard).with_suffix(".index.json")


def write_index(shard: Path, index: ShardIndex) -> None:
    """Write the index next to its shard, atomically; no other process may be writing it."""
    members = [member._asdict() for member in index.members]
    text = json.dumps({"format": INDEX_FORMAT, **vars(index), "members": members}, ensure_ascii=False)
    write_file(index_path(shard), text, sole_writer=True)


def read_index(shard: Path) -> ShardIndex | None:
    """Read the index next to a local shard; None if there is none.

    Raises:
        InputError: If the file is not an index of this shard.
    """
    path = index_path(shard)
    return parse_index(path.read_bytes(), str(path), shard.name) if path.is_file() else None


def parse_index(text: bytes, path: str, shard_name: str) -> ShardIndex:
    """Read the index of `shard_name` from the bytes of its file; `path` names it in errors.

    Raises:
        InputError: If the bytes are not an index of this shard.
    """
    try:
        index = _from_json(json.loads(text))
        if index.shard != shard_name:
            raise ValueError(f"it belongs to '{index.shard}'")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"'{path}' is not an index of '{shard_name}': {error}. Remove it, or write the shard again."
        ) from None
    return index


def _from_json(data: Any) -> ShardIndex:
    if not isinstance(data, dict) or data.get("format") != INDEX_FORMAT:
        raise ValueError(f'it has no "format": {INDEX_FORMAT}')
    members = tuple(
        Member(str(m["key"]), str(m["name"]), int(m["offset"]), int(m["size"]), str(m["sha256"]))
        for m in data["members"]
    )
    for member in members:
        if member.offset < 0 or member.size < 0 or not member.name.startswith(member.key + "."):
            raise ValueError(f"member '{member.name}' has an impossible key, offset or size")
        if len(bytes.fromhex(member.sha256)) not in (0, 32):
            raise ValueError(f"member '{member.name}' has no SHA-256")
    return ShardIndex(str(data["shard"]), int(data["bytes"]), int(data["samples"]), members)
