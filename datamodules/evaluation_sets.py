"""Evaluation sets: recordings whose instrument is known, from a folder, from shards, or those that come with the package."""

import csv
import hashlib
import logging
import re
from collections import Counter
from pathlib import Path

from apa_lightning.audio import AUDIO_SUFFIXES, find_audio, save_audio
from apa_lightning.errors import InputError
from apa_lightning.evaluation.plan import Source
from apa_lightning.evaluation.tasks import Task
from apa_lightning.utils.atomic_files import file_lock, remove_leftovers
from datamodules.shards.captions import CaptionTemplates
from datamodules.shards.decoding import ExampleDecoder
from datamodules.shards.indexed import IndexedShards
from datamodules.shards.samples import Fault, Group
from datamodules.shards.scan import locate_samples
from datamodules.shards.table import SampleTable
from datamodules.shards.urls import EMBEDDED, expand_local_shards

log = logging.getLogger(__name__)

SECONDS, RATE = 30.0, 16_000
"""Longest part of a shard's clip that is used, and its sample rate."""
EMBEDDED_SET = EMBEDDED / "evaluation" / "evaluation-000000.tar"


def read_set(sources: str, instruments: Path | None, output: Path) -> tuple[str, list[Source]]:
    """Return the set's name and its recordings.

    Args:
        sources: ``embedded``, a folder, or shards (a path, wildcard or brace expression of tar files).
        instruments: CSV with the columns ``file`` and ``instrument``, for a folder whose files are named otherwise.
        output: Folder of the evaluation; clips of shards are unpacked into it.

    Raises:
        FileNotFoundError: If there is no such folder or shard.
        InputError: If it holds no recording, or one whose instrument is not known.
    """
    if sources == "embedded":
        return "embedded", _of_shards([EMBEDDED_SET], output)
    if (folder := Path(sources).expanduser()).is_dir():
        return folder.resolve().name, _of_folder(folder, instruments)
    if not any(part.endswith(".tar") for part in re.split(r"[{},]", sources)):
        raise FileNotFoundError(
            f"sources: {sources} is not a folder. Give a folder of recordings, shards (*.tar), or embedded."
        )
    shards = expand_local_shards("sources", sources, "validation")
    return shards[0].resolve().parent.name, _of_shards(shards, output)


def _of_folder(folder: Path, instruments: Path | None) -> list[Source]:
    files, _, _ = found_audio = find_audio(folder)
    if not files:
        raise InputError(
            f"sources: {folder} holds no recordings ({found_audio.left_out or ', '.join(AUDIO_SUFFIXES)})."
        )
    if found_audio.unread:
        log.warning("sources: %s: %s.", folder, found_audio.left_out)
    named = None if instruments is None else _read_instruments(instruments)
    unknown, found = [], []
    for path in files:
        instrument = _instrument_of(path) if named is None else named.get(path.name, "")
        if instrument:
            found.append(Source(path.stem, path.resolve(), instrument))
        else:
            unknown.append(path.name)
    if unknown:
        way = (
            f"Add them to {instruments}."
            if instruments
            else "Name files like piano_0.wav, or give instruments CSV with the columns file and instrument."
        )
        raise InputError(f"sources: the instrument of {', '.join(unknown[:5])} in {folder} is not known. {way}")
    if twice := sorted(name for name, count in Counter(one.name for one in found).items() if count > 1):
        raise InputError(f"sources: {', '.join(twice)} is there with two suffixes; keep one of each.")
    return found


def _instrument_of(path: Path) -> str:
    """The instrument in a name, such as "acoustic guitar" of acoustic_guitar_0.wav; empty where it has no word."""
    words = re.sub(r"[\s_-]*\d+$", "", path.stem).replace("_", " ").strip()
    return words if re.search(r"[^\W\d]", words) else ""


def _read_instruments(path: Path) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise FileNotFoundError(f"instruments: {path} does not exist.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"instruments: {path} cannot be read ({error}).") from None
    if not rows or not {"file", "instrument"} <= set(rows[0]):
        raise InputError(f"instruments: {path} needs the columns file and instrument, and a line per recording.")
    return {(row["file"] or "").strip(): (row["instrument"] or "").strip() for row in rows}


def _of_shards(shards: list[Path], output: Path) -> list[Source]:
    """Unpack the solos of the shards to files: predict reads files, and listeners want them too."""
    located = (item for shard in shards for item in locate_samples(shard))
    digests = [item.audio.sha256.encode() for item in located if isinstance(item, Group)]
    digest = hashlib.sha256(b"".join(digests)).hexdigest()
    folder = output / "sources" / digest[:12]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder.with_suffix(".lock")):  # each process of a run does this
            remove_leftovers(folder)
            found, faults = _unpack(SampleTable(shards), folder)
    except OSError as error:
        raise InputError(
            f"output: cannot write to {error.filename or output} ({error.strerror}). Free space or choose another folder."
        ) from None
    if faults:
        named = "; ".join(f"{fault.key} of {fault.shard}: {fault.reason}" for fault in faults[:5])
        raise InputError(f"sources: {len(faults)} clips are broken; nothing was edited. {named}")
    if not found:
        raise InputError(f"sources: no clip of {shards[0]} says its instrument (the JSON's field).")
    return found


def _unpack(table: SampleTable, folder: Path) -> tuple[list[Source], list[Fault]]:
    """Write the clips that name an instrument as files into ``folder``; also return the faults of those that are broken."""
    decode = ExampleDecoder(SECONDS, RATE, 0.0, False, CaptionTemplates(), 0, self_prompts=1.0)
    clips = IndexedShards(table, decode, substitute=False)
    found: list[Source] = []
    faults = list(table.faults)
    counts: Counter[str] = Counter()
    for fetched in map(clips.__getitem__, range(len(table))):
        faults += fetched.faults
        example = fetched.example
        if example is None or not (instrument := str(example["metadata"].get("instrument", ""))):
            continue
        name = f"{instrument.replace(' ', '_')}_{counts[instrument]}"
        counts[instrument] += 1
        path = folder / f"{name}.wav"
        if not path.is_file():
            save_audio(path, example["waveform"][: example["num_samples"]], RATE)
        found.append(Source(name, path.resolve(), instrument))
    return found, faults


def chosen(sources: list[Source], most: int | None, tasks: list[Task]) -> list[Source]:
    """Choose at most ``most`` sources, instruments in turn; those whose instrument is a target of a task come first.

    Raises:
        InputError: If ``most`` is below 1.
    """
    if most is not None and most < 1:
        raise InputError(f"num_sources: {most}; give 1 or more, or null for all.")
    known = {target for task in tasks for target in task.targets}
    turns: Counter[str] = Counter()
    ranked = []
    for source in sources:
        ranked.append((turns[source.instrument], source.instrument not in known, source))
        turns[source.instrument] += 1
    return [source for *_, source in sorted(ranked, key=lambda entry: entry[:2])[:most]]
