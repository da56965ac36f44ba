"""Finds the clips of AudioSet segments in a folder by the names that the common downloaders give them."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from apa_lightning.audio import OTHER_SUFFIXES
from datamodules.prepare.audioset_files import Segment
from datamodules.shards.index import AUDIO_EXTENSIONS

ID_LENGTH = 11
"""Length of a YouTube id. Only an id of this length is found behind other text, because shorter ones could be words."""
#: Formats of clips that are not read; "" is a file without a suffix, as yt-dlp writes it for the template `%(id)s`.
UNREAD_FORMATS = frozenset({"", "gz", "ogv"}.union(suffix[1:] for suffix in OTHER_SUFFIXES))

_PREFIX = re.compile(r"(?:.*[\W_])?[YyVv]?", re.DOTALL)  # PANNs writes Y before an id, Download_VGGSound v
_PLAIN_PREFIXES = frozenset({"", "Y", "v", "id_", "["})
_PROMPT = ".prompt"
_SEPARATOR = re.compile(r"(?:[^\w.]|_)+|\.(?![0-9])")
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)(?:s|sec|ms)?", re.IGNORECASE)


class Clip(NamedTuple):
    """The clip of a segment, or why it has none: `path` is None, or a file that must be converted first.

    `prompt` is the audio prompt that stands next to it, if there is one.
    """

    path: Path | None
    status: Literal["found", "convert", "missing"] = "found"
    detail: str = ""
    prompt: Path | None = None


class _Fit(NamedTuple):
    """How well a file fits a segment; smaller is better.

    Attributes:
        unread: Whether the file's format is not read.
        words: Whether the name holds text other than the id and the times, such as a title or `vocals`.
        start: 0 for a start in seconds, 1 in milliseconds, 2 in seconds cut to a whole number, 3 for no start.
    """

    unread: bool
    words: bool
    start: int


@dataclass
class _Match:
    """The best file of a segment so far; `rival` has another name that fits as well."""

    fit: _Fit
    path: Path
    rival: Path | None = None


def match_clips(segments: Sequence[Segment], folder: Path) -> list[Clip]:
    """Find each segment's clip in a folder and its subfolders.

    A name holds the id of the video; before it may stand `Y`, `v` or any text that ends in a separator (`id_ID`,
    `Title [ID]`). Behind it may follow the start, or the start and the end or length, with any separators: `ID_30`,
    `ID_30.000_40.000`, `ID_30.0-40.0`, `[ID]-[30-40]`, `ID_000030`, and `ID_30000_40000` in milliseconds. Times are
    compared with those of the list, seconds before milliseconds, so an id that itself ends in `_30` is not a problem.
    A name that fits several segments equally well (a video with two segments and one file without a start) is used
    for none, and of several names with further words (`ID_vocals`, `ID_drums`) none is used. `ID_30.prompt.wav` is the
    audio prompt of `ID_30.wav`.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"--clips: '{folder}' is not a folder.")
    numbers: dict[str, list[int]] = defaultdict(list)
    for number, segment in enumerate(segments):
        numbers[segment.ytid].append(number)
    lengths = sorted({len(ytid) for ytid in numbers})
    matches: dict[int, _Match] = {}
    reasons: dict[int, str] = {}
    prompts: dict[Path, Path] = {}  # by the path without suffixes
    for path, stem, extension in _media_files(folder):
        if stem.lower().endswith(_PROMPT):
            prompts.setdefault(path.with_name(stem[: -len(_PROMPT)]), path)
            continue
        unread = extension not in AUDIO_EXTENSIONS
        texts = [(n, prefix, rest) for ytid, prefix, rest in _ids_in(stem, numbers, lengths) for n in numbers[ytid]]
        fits = [(fit, n) for n, prefix, rest in texts if (fit := _fit(prefix, rest, segments[n], unread))]
        for number, *_ in texts if not fits else ():
            reasons.setdefault(number, f"'{path.name}' is there, but its name holds other times")
        owners = [number for fit, number in fits if fit == min(fits)[0]]
        for fit, number in fits:
            if [number] == owners:
                _keep_better(matches, number, _Match(fit, path))
            else:
                reasons[number] = f"'{path.name}' fits several segments; put the start in seconds in its name"
    clips = [_to_clip(matches.get(number), reasons.get(number, "no such file")) for number in range(len(segments))]
    return [
        clip._replace(prompt=prompts.get(clip.path.with_suffix(""))) if clip.path and clip.status == "found" else clip
        for clip in clips
    ]


def count_suffixes(names: Iterable[str | Path]) -> str:
    """The suffixes of files and their numbers, most frequent first, such as `300 .m4a, 2 .tar`."""
    counts = Counter(Path(name).suffix.lower() or "without suffix" for name in names)
    return ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(5))


def _media_files(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """(path, name without suffix, suffix without its dot) of the audio and video files in a folder and below it.

    Of files that differ in the suffix alone, those that are read come first, in the order of `AUDIO_EXTENSIONS`.
    """
    order = {extension: rank for rank, extension in enumerate(AUDIO_EXTENSIONS)}
    for place, folders, names in os.walk(folder):
        folders.sort()
        found = []
        for name in names:
            stem, extension = os.path.splitext(name)
            if extension[1:].isdigit():  # `ID_30.000` has no suffix
                stem, extension = name, ""
            extension = extension[1:].lower()
            if not name.startswith(".") and (extension in order or extension in UNREAD_FORMATS):
                found.append((order.get(extension, len(order)), name, stem, extension))
        yield from ((Path(place, name), stem, extension) for _, name, stem, extension in sorted(found))


def _ids_in(stem: str, ids: dict[str, list[int]], lengths: Sequence[int]) -> Iterator[tuple[str, str, str]]:
    """(id, text before it, text behind it) of the known ids in a name."""
    for length in lengths:
        places = range(len(stem) - length + 1)
        for start in places if length == ID_LENGTH else places[:1]:
            prefix, ytid, rest = stem[:start], stem[start : start + length], stem[start + length :]
            if ytid in ids and _PREFIX.fullmatch(prefix) and not rest[:1].isalnum():
                yield ytid, prefix, rest


def _fit(prefix: str, rest: str, segment: Segment, unread: bool) -> _Fit | None:
    """How well a name fits a segment by the text around its id; None where it holds other times."""
    parts = [part for part in _SEPARATOR.split(rest) if part]
    matches = [_TIME.fullmatch(part) for part in parts]
    times = [float(match[1]) for match in matches if match]
    others = [part for part, match in zip(parts, matches, strict=True) if not match]
    if len(times) > 2 or not all(re.search(r"[^\W\d]", part) for part in others):
        return None
    fit = _Fit(unread, prefix not in _PLAIN_PREFIXES or bool(others), 3)
    if not times:
        return fit
    bounds = segment.start, segment.end
    milliseconds = [float(round(bound * 1000)) for bound in bounds]
    for start, (first, last) in enumerate((bounds, milliseconds, [float(int(bound)) for bound in bounds])):
        if abs(times[0] - first) < 5e-4 and all(min(abs(t - last), abs(t - last + first)) < 5e-4 for t in times[1:]):
            return fit._replace(start=start)
    return None


def _keep_better(matches: dict[int, _Match], number: int, new: _Match) -> None:
    old = matches.setdefault(number, new)
    if new.fit < old.fit:
        matches[number] = new
    elif new.fit == old.fit and new.fit.words and new.path.stem != old.path.stem:
        old.rival = new.path


def _to_clip(match: _Match | None, reason: str) -> Clip:
    if match is None:
        return Clip(None, "missing", reason)
    if match.rival is not None:
        return Clip(None, "missing", f"'{match.path.name}' and '{match.rival.name}' both fit; keep one of them")
    if match.fit.unread:
        return Clip(match.path, "convert", "it is there; convert it to FLAC or WAV")
    return Clip(match.path)
