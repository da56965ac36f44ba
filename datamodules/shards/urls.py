"""Expands the names of shards in settings to a checked list of local paths and URLs."""

import glob
import itertools
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urldefrag
from urllib.request import url2pathname

import braceexpand

from apa_lightning.errors import InputError

EMBEDDED = Path(__file__).parents[1] / "embedded"
_MOST = 1_000_000
_COMMANDS = {
    "s3": "aws s3 cp s3://{place} -",
    "gs": "gcloud storage cat gs://{place}",
    "az": "az storage blob download -c {container} -n {path} -f /dev/stdout --max-connections 1 --no-progress --output none",
    "hf": 'curl -sfL -H "Authorization: Bearer $(hf auth token)" {hub}',
    "ais": "ais get ais://{place} -",
    "hdfs": "hdfs dfs -cat hdfs://{place}",
    "scp": "ssh {host} cat /{path}",
    **dict.fromkeys(("ftp", "ftps", "sftp"), "curl -sf {scheme}://{place}"),
}
_OTHER_SCHEMES = {
    **dict.fromkeys(("s3a", "s3n"), "s3"),
    **dict.fromkeys(("gcs", "htgs"), "gs"),
    **dict.fromkeys(("azure", "abfs", "abfss", "wasb", "wasbs"), "az"),
    "ssh": "scp",
}


def expand_shards(setting: str, shards: str | Sequence[str], allow_pipe: bool, split: str) -> list[str]:
    """Expand braces and wildcards, and check what can be checked before anything is read.

    Args:
        setting: Name of the setting, for messages, such as `train_shards`.
        shards: `"embedded"`, or one or more of: local paths (`~`, `{000..009}`, `*`), `file://`, http(s) URLs, and
            `pipe:` commands.
        allow_pipe: Whether `pipe:` commands may run.
        split: "train" or "validation", for the embedded shards.

    Returns:
        Absolute local paths, URLs and commands, none twice.

    Raises:
        FileNotFoundError: If local shards are missing; all of them are named, up to five.
        InputError: If nothing is named, or a name cannot be expanded, matches nothing, comes twice or may not be opened.
    """
    names = [shards] if isinstance(shards, str) else list(shards)
    if names == ["embedded"]:
        names = [f"{glob.escape(str(EMBEDDED))}/{split}-*.tar"]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise InputError(f"{setting}: names no shard. Give paths or URLs of tar files, or 'embedded'.")
    patterns = [pattern for name in names for pattern in _braces(setting, name)]
    urls = [url for pattern in patterns for url in _expand(setting, pattern, allow_pipe)]
    missing = [url for url in urls if is_local(url) and not os.path.exists(url)]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise FileNotFoundError(f"{setting}: no such shard: {', '.join(missing[:5])}{more}.")
    seen: set[str] = set()
    for url in urls:
        if shard_identity(url) in seen:
            raise InputError(f"{setting}: names the shard '{url}' twice. Name it once.")
        seen.add(shard_identity(url))
    return urls


def expand_local_shards(setting: str, shards: str | Sequence[str], split: str) -> list[Path]:
    """Expand the names of shards that must be local paths (see `expand_shards`).

    Raises:
        FileNotFoundError: If shards are missing.
        InputError: If a name is a URL or a command, or cannot be expanded.
    """
    urls = expand_shards(setting, shards, True, split)  # commands are refused here, like all that is remote
    if remote := [url for url in urls if not is_local(url)]:
        raise InputError(f"{setting}: {remote[0]} is not local. Download it and give its path.")
    return [Path(url) for url in urls]


def is_local(url: str) -> bool:
    """Whether `url` is a path in the file system."""
    return not url.startswith(("http:", "https:", "pipe:"))


def shard_identity(url: str) -> str:
    """A text that is equal for two names of one shard: links are followed, the fragment of a URL is dropped."""
    if not is_local(url):
        return urldefrag(url).url
    status = os.stat(url)
    return f"{status.st_dev}:{status.st_ino}"


def _braces(setting: str, name: str) -> list[str]:
    # braceexpand first makes a list of each range, so the ranges are counted before.
    ranges = [abs(int(last) - int(first)) + 1 for first, last in re.findall(r"\{(-?\d+)\.\.(-?\d+)", name)]
    try:
        expanded = list(itertools.islice(braceexpand.braceexpand(name), _MOST)) if math.prod(ranges) <= _MOST else []
    except ValueError as error:  # UnbalancedBracesError is one
        raise InputError(f"{setting}: the braces of '{name}' cannot be expanded: {error}.") from None
    if not expanded or len(expanded) == _MOST:
        raise InputError(f"{setting}: '{name}' expands to more than {_MOST} shards.")
    return expanded


def _expand(setting: str, name: str, allow_pipe: bool) -> list[str]:
    scheme = name.partition(":")[0].lower() if ":" in name else ""
    if scheme == "pipe":
        if not allow_pipe:
            raise InputError(f"{setting}: '{name}' would run a command. If you trust it, set `allow_pipe` to true.")
        return [name]
    if scheme in ("http", "https"):
        return [scheme + name[len(scheme) :]]
    if scheme == "file" and name[5:].startswith("//"):
        name = url2pathname(name[5:].removeprefix("//").removeprefix("localhost"))
    elif "://" in name:
        raise InputError(
            f"{setting}: '{name}' cannot be opened directly. Local paths and http(s) URLs can, and commands if "
            f"`allow_pipe` is true, such as 'pipe:{_command(scheme, name)}'."
            + (f" A public repository needs no command: {_hub_address(name)}" if scheme == "hf" else "")
        )
    path = os.path.abspath(os.path.expanduser(name))
    if os.path.exists(path) or not glob.has_magic(path):
        return [path]
    found = sorted(glob.glob(path))
    if not found:
        raise FileNotFoundError(f"{setting}: no shard matches '{name}'.")
    return found


def _command(scheme: str, url: str) -> str:
    """A command of the store's own tool that writes an object to standard output."""
    place = url.partition("://")[2]
    host, _, path = place.partition("/")
    template = _COMMANDS.get(_OTHER_SCHEMES.get(scheme, scheme), "rclone cat {scheme}:{place}")
    container = host.partition("@")[0]  # az://CONTAINER/..., abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/...
    return template.format(scheme=scheme, place=place, host=host, path=path, container=container, hub=_hub_address(url))


def _hub_address(url: str) -> str:
    """The https address of `hf://datasets/USER/NAME@REVISION/PATH`."""
    place = url.partition("://")[2]
    kind, *parts = place.split("/") if place.startswith(("datasets/", "spaces/")) else ("", *place.split("/"))
    repository, _, revision = "/".join(parts[:2]).partition("@")
    file = "/".join([kind, repository, "resolve", revision or "main", *parts[2:]]).lstrip("/")
    return f"https://huggingface.co/{file}"
