"""Planning of edits: a manifest or folder becomes a checked list; all problems are reported at once, before any edit."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from apa_lightning.audio import AUDIO_SUFFIXES, AudioError, AudioInfo, find_audio
from apa_lightning.edit_jobs.manifest import ManifestRow, Problems
from apa_lightning.editing.audio_prompts import of_prompt
from apa_lightning.editing.prompt_inputs import check_part
from apa_lightning.editing.regions import check_fits
from apa_lightning.editing.request import EditRequest
from apa_lightning.editing.source import probe_recording
from apa_lightning.errors import InputError

OUTPUT_SUFFIXES = (".wav", ".flac")
MAX_NAME_BYTES = 200  # most file systems allow 255, and a temporary name next to it is longer


@dataclass(frozen=True)
class Edit:
    """One edit to make.

    Attributes:
        request: The request, with ``id`` and ``audio``.
        id: Its id.
        audio: The recording.
        output: Name of the result, relative to the output folder.
        where: File and line that asked for it.
        info: Facts from the recording's header; None where it cannot be read.
        problem: Why the recording cannot be read.
    """

    request: EditRequest
    id: str
    audio: Path
    output: str
    where: str
    info: AudioInfo | None
    problem: str = ""

    @property
    def sources(self) -> list[Path]:
        """The recording, and the files of the audio prompts."""
        return [self.audio, *(Path(prompt.audio) for prompt in self.request.prompt_entries if prompt.audio)]


def folder_rows(folder: str | PathLike, recursive: bool, output: Path) -> tuple[list[ManifestRow], str]:
    """A row for every recording in a folder, named by its path without suffix.

    Args:
        folder: The folder; hidden files and folders in it are left out.
        recursive: Whether to search its subfolders too.
        output: Folder of the results, which is left out.

    Returns:
        The rows, and which sound files are left out because their format is not read.

    Raises:
        FileNotFoundError: If there is no such folder.
        InputError: If there are no recordings in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"folder: {folder} is not a folder.")
    files, _, deeper = found = find_audio(folder, recursive, leave_out=output)
    hints = [found.left_out] if found.unread else []
    hints += [f"its subfolders hold {deeper}: `recursive` true searches them"] if deeper else []
    if not files:
        kinds = ", ".join(AUDIO_SUFFIXES)
        raise InputError(f"folder: {folder} holds no recordings ({'; '.join(hints) or f'files that end in {kinds}'}).")
    stems = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    rows = []
    for stem, file in zip(stems, files, strict=True):
        # a.wav and a.flac in one folder keep their suffix in the name.
        name = f"{stem}_{file.suffix[1:]}" if stems.count(stem) > 1 else stem
        rows.append(ManifestRow("", {"id": name, "audio": str(file.resolve())}))
    return rows, "; ".join(hints)


def plan_edits(
    rows: Iterable[ManifestRow],
    defaults: Mapping[str, Any],
    base: Path,
    output: Path,
    problems: Problems,
    skip_unreadable: bool | None = None,
) -> list[Edit]:
    """Check the rows and make their edits.

    Args:
        rows: Of a manifest or folder.
        defaults: Every knob's value for rows that leave it out, also ``prompt`` (None: each row needs its own).
        base: Folder at which relative audio paths start.
        output: Folder of the results.
        problems: Gets everything that is wrong with a row; such a row has no edit.
        skip_unreadable: Whether a recording that cannot be read is noted in its edit instead, unless all are so. None: there
            is no such choice.
    """
    planner = _Planner(defaults, base, output, problems, bool(skip_unreadable))
    edits = [edit for row in rows if (edit := planner.plan(row)) is not None]
    planner.check_overwriting()
    if all(edit.problem for edit in edits):
        for edit in edits:
            problems.add(edit.where, edit.problem)
    elif skip_unreadable is False and any(isinstance(info, str) for info in planner.recordings.values()):
        problems.way_out = "To edit the other recordings all the same: `skip_unreadable` true."
    return edits


class _Planner:
    def __init__(
        self, defaults: Mapping[str, Any], base: Path, output: Path, problems: Problems, skip_unreadable: bool
    ):
        self.skip_unreadable = skip_unreadable
        self.defaults, self.base, self.output, self.problems = dict(defaults), base, output, problems
        self.recordings: dict[Path, AudioInfo | str] = {}  # those that are edited
        self.found: dict[Path, AudioInfo | str] = {}  # and those of audio prompts too
        self.ids: dict[str, str] = {}  # by id, where it was first given
        self.outputs: dict[str, str] = {}

    def plan(self, row: ManifestRow) -> Edit | None:
        before = len(self.problems.messages)
        values = {**self.defaults, **row.values}
        if values["prompt"] is None and "prompt" in row.empty:
            values["prompt"] = ""
        self._resolve_prompts(row, values)
        given = (row.values.keys() | self._join_pairs(row, values)) & set(EditRequest.names())
        audio, output = self._audio(row, values), values.pop("output", None)
        self._check_knobs(row, values, given)
        edit_id = values.pop("id", None)
        if audio is None or (edit_id is None and "id" in row.values):
            return None
        edit_id = audio.stem if edit_id is None else str(edit_id)
        output = self._output(row, edit_id, output)
        values |= {"audio": str(audio), "id": edit_id}
        request = EditRequest(**values) if len(self.problems.messages) == before else None
        info = self._recording(row, audio, request)
        self._check_collisions(row, edit_id, output, audio)
        if request is None or len(self.problems.messages) > before:
            return None
        self._check_prompts(row, request, info)
        if len(self.problems.messages) > before:
            return None
        facts = (None, info) if isinstance(info, str) else (info, "")
        return Edit(request, edit_id, audio, output, row.where, *facts)

    def _join_pairs(self, row: ManifestRow, values: dict[str, Any]) -> set[str]:
        """Make pairs such as ``region`` of their two columns; returns the names of such pairs."""
        joined = set()
        for name, columns in EditRequest.pairs().items():
            ends = {column: values.pop(column, None) for column in columns}
            missing = [end for end, value in ends.items() if value is None]
            if len(missing) == 2:
                continue
            if missing:
                self.problems.add(
                    row.where, f"{missing[0]}: is missing; give both {' and '.join(columns)}, in seconds."
                )
            elif name in row.values:
                self.problems.add(row.where, f"can't have both {name!r} and {', '.join(map(repr, ends))}. Choose one.")
            else:
                values[name] = tuple(ends.values())
                joined.add(name)
        return joined

    def _resolve_prompts(self, row: ManifestRow, values: dict[str, Any]) -> None:
        """Let the files of a row's own audio prompts start at the manifest's folder, as its recording does."""
        entries, base = values.get("audio_prompts"), self.base if "audio_prompts" in row.values else Path()
        if isinstance(entries, list):
            values["audio_prompts"] = [
                {**entry, "audio": str(base / Path(entry["audio"]).expanduser())}
                if isinstance(entry, Mapping) and isinstance(entry.get("audio"), str) and entry["audio"].strip()
                else entry
                for entry in entries
            ]

    def _audio(self, row: ManifestRow, values: dict[str, Any]) -> Path | None:
        audio = values.pop("audio", None)
        if isinstance(audio, str) and audio.strip():
            return self.base / Path(audio).expanduser()
        self.problems.add(
            row.where, f"audio: {audio!r} is not a file name." if "audio" in row.values else "audio: is missing."
        )
        return None

    def _check_knobs(self, row: ManifestRow, values: Mapping[str, Any], given: Iterable[str]) -> None:
        """Report every bad value of the row, not only the first one."""
        for name in given:
            value = values[name]
            if name == "id":
                if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
                    self.problems.add(row.where, f"id: {value!r} is not a name.")
                continue
            try:
                EditRequest.check(name, value)
            except InputError as error:
                self.problems.add(row.where, error)

    def _output(self, row: ManifestRow, edit_id: str, name: object) -> str:
        """The result's name inside the output folder."""
        field = "id" if name is None else "output"
        name = f"{edit_id}.wav" if name is None else name
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            self.problems.add(row.where, f"{field}: {name!r} is not a file name.")
            return ""
        path, shown = Path(name), edit_id if field == "id" else name
        root = self.output.resolve()
        if path.is_absolute() or ".." in path.parts or not (self.output / path).resolve().is_relative_to(root):
            problem = f"{shown!r} leaves the output folder {self.output}. Give a relative name inside it."
        elif any(part.startswith(".") for part in path.parts):
            problem = f"{shown!r} is a hidden file. Give a name that does not start with a dot."
        elif any(len(part.encode()) > MAX_NAME_BYTES for part in path.parts):
            problem = f"{shown[:40] + '...'!r} is longer than {MAX_NAME_BYTES} bytes. Give a shorter name."
        elif path.suffix.lower() not in OUTPUT_SUFFIXES:
            problem = f"{name!r} is not an audio file name. Let it end in {' or '.join(OUTPUT_SUFFIXES)}."
        else:
            return path.as_posix()
        self.problems.add(row.where, f"{field}: {problem}")
        return path.as_posix()

    def _probe(self, audio: Path) -> AudioInfo | str:
        """Facts about a recording, or why it cannot be read; it is opened once, however many edits and prompts name it."""
        if audio not in self.found:
            try:
                self.found[audio] = probe_recording(audio)
            except (AudioError, OSError) as error:
                self.found[audio] = str(error)
        return self.found[audio]

    def _check_prompts(self, row: ManifestRow, request: EditRequest, edited: AudioInfo | str) -> None:
        """Report audio prompts that cannot be read, or whose part lies outside of their recording."""
        for number, prompt in enumerate(request.prompt_entries):
            own = prompt.audio is not None
            try:
                with of_prompt(number):
                    if own and not isinstance(prompt.audio, str | PathLike):
                        raise InputError(f"audio: is a {type(prompt.audio).__name__}; give a file.")
                    info = self._probe(Path(prompt.audio)) if own else edited
                    if not isinstance(info, str):
                        check_part(prompt, info.seconds, str(prompt.audio if own else request.audio))
                    elif own:
                        raise InputError(f"audio: {info}")
            except InputError as error:
                # What is wrong with the command's own prompts is reported once, not for every row.
                self.problems.add("" if own and "audio_prompts" not in row.values else row.where, error)

    def _recording(self, row: ManifestRow, audio: Path, request: EditRequest | None) -> AudioInfo | str:
        """Facts about the recording, or why it cannot be read."""
        info = self.recordings[audio] = self._probe(audio)
        if isinstance(info, str) and not self.skip_unreadable:
            self.problems.add(row.where, f"audio: {info}" if row.where else info)
        if request is not None and isinstance(info, AudioInfo):
            try:
                check_fits(request, info.seconds, str(audio))
            except AudioError as error:
                self.problems.add(row.where, error)
        return info

    def _check_collisions(self, row: ManifestRow, edit_id: str, output: str, audio: Path) -> None:
        """Report an id or output that an earlier row has."""
        place = row.where or str(audio)
        if (other := self.ids.setdefault(edit_id, place)) != place:
            self.problems.add(row.where, f"id: {edit_id!r} is already that of {other}. Give each edit its own id.")
        elif output and (other := self.outputs.setdefault(output, place)) != place:
            self.problems.add(row.where, f"output: {output!r} is already that of {other}. Give each edit its own.")

    def check_overwriting(self) -> None:
        """Report outputs that are one of the recordings."""
        recordings = {audio.resolve(): audio for audio in self.found}
        for output, place in self.outputs.items():
            if (source := recordings.get((self.output / output).resolve())) is not None:
                self.problems.add(
                    place,
                    f"output: {self.output / output} would overwrite the recording {source}. "
                    "Choose another output folder (`output`) or name.",
                )
