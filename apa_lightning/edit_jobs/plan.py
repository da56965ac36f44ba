"""From a manifest or a folder to a checked list of edits; whatever is wrong is reported at once, before any edit."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from apa_lightning.audio import AudioError, AudioInfo, load_audio, probe_audio, to_mono
from apa_lightning.edit_jobs.manifest import Problems, Row
from apa_lightning.editing.request import EditRequest, check_length, check_not_silent
from apa_lightning.errors import InputError

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
OUTPUT_SUFFIXES = (".wav", ".flac")
MAX_NAME_BYTES = 200  # most file systems allow 255, and a temporary name beside it is longer
HEARD_SECONDS = 5.0


@dataclass(frozen=True)
class Edit:
    """One edit to make: `request` and the `id` and `audio` in it, `output` relative to the output folder, `where` it
    was asked for, and what the recording's header says."""

    request: EditRequest
    id: str
    audio: Path
    output: str
    where: str
    info: AudioInfo


def folder_rows(folder: str | PathLike, recursive: bool, output: Path) -> list[Row]:
    """A row for every recording in `folder`, named by its path without suffix; hidden files and `output` are left out.

    Raises:
        FileNotFoundError, InputError: no such folder, or no recordings in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"--data.folder: {folder} is not a folder.")
    files = []
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        inner = [
            name for name in sorted(folders) if not name.startswith(".") and (here / name).resolve() != output.resolve()
        ]
        folders[:] = inner if recursive else []
        files += [
            here / name
            for name in sorted(names)
            if not name.startswith(".") and Path(name).suffix.lower() in AUDIO_SUFFIXES
        ]
    if not files:
        hint = "" if recursive else " (only its top level was searched: --data.recursive true)"
        raise InputError(f"--data.folder: {folder} holds no {', '.join(AUDIO_SUFFIXES)}{hint}.")
    stems = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    # a.wav and a.flac side by side keep their suffix in the name
    ids = [
        f"{stem}_{file.suffix[1:]}" if stems.count(stem) > 1 else stem for stem, file in zip(stems, files, strict=True)
    ]
    return [Row("", {"id": name, "audio": str(file.resolve())}) for name, file in zip(ids, files, strict=True)]


def plan_edits(
    rows: Iterable[Row], defaults: Mapping[str, Any], base: Path, output: Path, problems: Problems
) -> list[Edit]:
    """Checked edits of `rows`; a row with anything wrong goes to `problems`.

    Args:
        rows: of a manifest or folder.
        defaults: knobs of :class:`EditRequest` for what a row leaves out, also `prompt` (`None`: rows need their own).
        base: where relative audio paths start.
        output: folder of the results.
    """
    planner = _Planner(defaults, base, output, problems)
    edits = [edit for row in rows if (edit := planner.plan(row)) is not None]
    planner.check_overwriting()
    return edits


class _Planner:
    def __init__(self, defaults: Mapping[str, Any], base: Path, output: Path, problems: Problems):
        self.defaults, self.base, self.output, self.problems = dict(defaults), base, output, problems
        self.recordings: dict[Path, AudioInfo | str] = {}  # a recording is opened once, however many edits it has
        self.ids: dict[str, str] = {}  # where each was first given
        self.outputs: dict[str, str] = {}

    def plan(self, row: Row) -> Edit | None:
        before = len(self.problems.messages)
        values = {**self.defaults, **row.values}
        self._region(row, values)
        if values["prompt"] is None and "prompt" in row.empty:
            values["prompt"] = ""
        audio, output = self._audio(row, values), values.pop("output", None)
        self._check_each(row, values)
        region = values["region"] if len(self.problems.messages) == before else None
        edit_id = values.pop("id", None)
        if audio is None or (edit_id is None and "id" in row.values):
            return None
        edit_id = audio.stem if edit_id is None else str(edit_id)
        output = self._output(row, edit_id, output)
        info = self._recording(row, audio, region)
        self._check_collisions(row, edit_id, output, audio)
        if info is None or len(self.problems.messages) > before:
            return None
        request = EditRequest(**{**values, "audio": str(audio), "id": edit_id})
        return Edit(request, edit_id, audio, output, row.where, info)

    def _region(self, row: Row, values: dict[str, Any]) -> None:
        """`region_start` and `region_end` become `region`."""
        start, end = values.pop("region_start", None), values.pop("region_end", None)
        if start is None and end is None:
            if isinstance(values["region"], list):
                values["region"] = tuple(values["region"])
        elif start is None or end is None:
            self.problems.add(
                row.where,
                f"region_{'start' if start is None else 'end'}: is missing; a region needs both ends, in seconds.",
            )
        elif "region" in row.values:
            self.problems.add(row.where, "can't have both 'region' and 'region_start', 'region_end'. Choose one.")
        else:
            values["region"] = (start, end)

    def _audio(self, row: Row, values: dict[str, Any]) -> Path | None:
        audio = values.pop("audio", None)
        if isinstance(audio, str) and audio.strip():
            return self.base / Path(audio).expanduser()
        self.problems.add(
            row.where, f"audio: {audio!r} is no file name." if "audio" in row.values else "audio: is missing."
        )
        return None

    def _check_each(self, row: Row, values: Mapping[str, Any]) -> None:
        """Every bad value of the row, not only the first: each is tried alone."""
        for name in row.values.keys() | ({"region"} if values["region"] else set()):
            if name in ("audio", "output", "region_start", "region_end"):
                continue
            value = values[name]
            if name == "id":
                if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
                    self.problems.add(row.where, f"id: {value!r} is no name.")
            elif name == "match_level":
                if not isinstance(value, bool):
                    self.problems.add(row.where, f"match_level: {value!r} is neither true nor false.")
            elif name == "scheduler" and not isinstance(value, str):
                self.problems.add(row.where, f"scheduler: {value!r} is no name.")
            else:
                try:
                    EditRequest(**{"audio": "audio", "prompt": "", name: value})
                except (InputError, TypeError) as error:
                    self.problems.add(
                        row.where, error if isinstance(error, InputError) else f"{name}: {value!r} cannot be used."
                    )

    def _output(self, row: Row, edit_id: str, name: object) -> str:
        """The result's name inside the output folder."""
        field = "id" if name is None else "output"
        name = f"{edit_id}.wav" if name is None else name
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            self.problems.add(row.where, f"{field}: {name!r} is no file name.")
            return ""
        path = Path(name)
        shown = edit_id if field == "id" else name
        if (
            path.is_absolute()
            or ".." in path.parts
            or not (self.output / path).resolve().is_relative_to(self.output.resolve())
        ):
            self.problems.add(
                row.where, f"{field}: {shown!r} leaves the output folder {self.output}. Give a relative name inside it."
            )
        elif any(part.startswith(".") for part in path.parts):
            self.problems.add(
                row.where, f"{field}: {shown!r} is a hidden file. Give a name that does not start with a dot."
            )
        elif any(len(part.encode()) > MAX_NAME_BYTES for part in path.parts):
            self.problems.add(
                row.where,
                f"{field}: {shown[:40] + '...'!r} is longer than {MAX_NAME_BYTES} bytes. Give a shorter name.",
            )
        elif path.suffix.lower() not in OUTPUT_SUFFIXES:
            self.problems.add(
                row.where, f"output: {name!r} is no audio file name. Let it end in {' or '.join(OUTPUT_SUFFIXES)}."
            )
        return path.as_posix()

    def _recording(self, row: Row, audio: Path, region: tuple[float, float] | None) -> AudioInfo | None:
        if audio not in self.recordings:
            try:
                found = probe_audio(audio)
                check_length(found.seconds, None, str(audio))
                _check_heard(audio, found)
                self.recordings[audio] = found
            except (AudioError, OSError) as error:
                self.recordings[audio] = str(error)
        info = self.recordings[audio]
        if isinstance(info, str):
            self.problems.add(row.where, f"audio: {info}" if row.where else info)
            return None
        try:
            check_length(info.seconds, region, str(audio))
        except AudioError as error:
            self.problems.add(row.where, error)
        return info

    def _check_collisions(self, row: Row, edit_id: str, output: str, audio: Path) -> None:
        """No id and no output twice."""
        place = row.where or str(audio)
        if (other := self.ids.setdefault(edit_id, place)) != place:
            self.problems.add(row.where, f"id: {edit_id!r} is already that of {other}. Give each edit its own id.")
        elif output and (other := self.outputs.setdefault(output, place)) != place:
            self.problems.add(row.where, f"output: {output!r} is already that of {other}. Give each edit its own.")

    def check_overwriting(self) -> None:
        """No output that is one of the recordings."""
        recordings = {audio.resolve(): audio for audio in self.recordings}
        for output, place in self.outputs.items():
            if (source := recordings.get((self.output / output).resolve())) is not None:
                self.problems.add(
                    place,
                    f"output: {self.output / output} would overwrite the recording {source}. "
                    "Choose another output folder (--data.output) or name.",
                )


def _check_heard(audio: Path, info: AudioInfo) -> None:
    """Refuse silence. Only as much is decoded as it takes to hear something: mostly the first seconds."""
    start = 0.0
    while start < info.seconds:
        waveform, _ = load_audio(audio, start=start, seconds=HEARD_SECONDS)
        start += HEARD_SECONDS
        try:
            return check_not_silent(to_mono(waveform), str(audio))
        except AudioError:
            if start >= info.seconds:
                raise
