"""The `shards` command: makes shards with indexes from AudioSet's own files and a folder of clips."""

import hashlib
import io
import os
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import soundfile

from apa_lightning.audio import AudioError, load_audio, resample, to_mono
from apa_lightning.edit_jobs.parts import Part
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import file_lock
from apa_lightning.utils.progress import progress
from datamodules.prepare.audioset_files import (
    Ontology,
    Segment,
    find_labels,
    read_class_labels,
    read_segments,
    similar,
)
from datamodules.prepare.clip_names import Clip, count_suffixes, match_clips
from datamodules.prepare.part_reports import merge_reports, refuse_other_runs, refuse_other_settings, run_name
from datamodules.prepare.shard_run import Problem, ShardRun
from datamodules.prepare.workers import in_order
from datamodules.ranges import check_range
from datamodules.shards.writer import ShardWriter

_LONGEST = 1.5  # times its segment; a longer clip is most likely the whole video


class _Task(NamedTuple):
    """A clip to encode, with what a worker needs to know."""

    segment: Segment
    labels: list[str]
    path: Path
    prompt: Path | None
    flac: bool
    sample_rate: int
    min_seconds: float


def make_shards(
    segments: Path,
    clips: Path,
    out: Path,
    class_labels: Path | None = None,
    ontology: Path | None = None,
    branch: str | None = "Music",
    labels: list[str] | None = None,
    name: str = "train",
    flac: bool = True,
    sample_rate: int = 16_000,
    min_seconds: float = 1.0,
    max_bytes: int = 500_000_000,
    max_samples: int = 10_000,
    workers: int = 2,
    overwrite: bool = False,
    part: str | None = None,
) -> None:
    """Make shards from AudioSet's files and a folder of clips.

    Writes `<out>/<name>-000000.tar`, ... with an index next to each, `<name>-report.json` with the counts and
    `<name>-report.csv` with a line for every clip that is missing, in another format, short or broken, or has no label
    that is known. It can be stopped at any time; the same command resumes after the last finished shard and makes the same
    shards as an uninterrupted run.

    Clips are found by their names in the forms of the common downloaders (see `match_clips`). `NAME.prompt.wav` next to
    `NAME.wav` becomes its audio prompt in the shard.

    Args:
        segments: AudioSet's `*_segments.csv`.
        clips: Folder of clips, named by the id of their video and, optionally, the start and end (docs/data.md lists forms).
        out: Folder for the shards.
        class_labels: AudioSet's `class_labels_indices.csv`, for the labels' names. Without it the ontology names them.
        ontology: AudioSet's `ontology.json`; if it is given, only segments with a label in `branch` are taken.
        branch: Name or id of a node of the ontology; null takes all.
        labels: Take only segments with one of these labels, by name or id.
        name: First part of the shards' names, such as train or validation.
        flac: Store mono FLAC at `sample_rate`. False: store the files as they are.
        sample_rate: Of the FLAC, in Hz.
        min_seconds: Shorter clips are left out.
        max_bytes: Largest shard.
        max_samples: Most clips in a shard.
        workers: Processes that decode and encode; 0 works in this one.
        overwrite: Start again, replacing shards of the same name.
        part: Make only this part of the shards, such as 3/16, as one task of a job array: the shards are named
            `<name>-03of16-000000.tar`, ..., and the last part to finish merges the reports. `slurm` takes the place of the
            task in SLURM's array.

    Raises:
        FileNotFoundError: If an input file is missing.
        InputError: If one of them or a setting cannot be used, if nothing is selected, or if `out` holds shards of
            another run.
    """
    if not name or not all(c.isascii() and (c.isalnum() or c in "_-") for c in name):
        raise InputError(f"--name: '{name}' may hold only letters, digits, - and _.")
    for option, path in (("--segments", segments), ("--class_labels", class_labels), ("--ontology", ontology)):
        if path is not None and not path.is_file():
            raise FileNotFoundError(f"{option}: there is no file '{path}'.")
    check_range("sample_rate", sample_rate, int, 4000, 384_000)
    check_range("min_seconds", min_seconds, int | float, 0)
    for field, value, least in (("max_bytes", max_bytes, 1), ("max_samples", max_samples, 1), ("workers", workers, 0)):
        check_range(field, value, int, least)
    own = Part.read(part)
    if own and own.of == 1:
        own = None
    chosen, names = _select(segments, class_labels, ontology, branch, labels)
    matched = match_clips(chosen, clips)
    if not any(clip.status == "found" for clip in matched):
        raise InputError(_nothing_found(chosen[0], matched, clips))
    settings: dict[str, object] = {
        "segments": _digest(segments),
        "class_labels": class_labels and _digest(class_labels),
        "ontology": ontology and _digest(ontology),
        "branch": branch,
        "labels": labels,
        "flac": flac,
        "sample_rate": sample_rate,
        "min_seconds": min_seconds,
        "max_bytes": max_bytes,
        "max_samples": max_samples,
    }
    unknown = Counter(
        label
        for segment, clip in zip(chosen, matched, strict=True)
        for label in segment.mids
        if clip.status == "found" and label not in names
    )
    out.mkdir(parents=True, exist_ok=True)
    run_as = run_name(name, own)
    with file_lock(out / f"{run_as}.lock", wait=False) as held:
        if not held:
            share = "" if own else ", or let several processes share the work: --part 1/4, 2/4, ..."
            raise InputError(
                f"--out: another process is writing the shards '{run_as}' into '{out}'. Wait for it{share}."
            )
        refuse_other_runs(out, name, own, overwrite)
        if own and not overwrite:
            refuse_other_settings(out, name, own, settings)
        run = ShardRun(out, run_as, settings, overwrite)
        if run.complete:
            print(f"'{out}' is complete already; --overwrite=true makes it again.")
        else:
            tasks: list[_Task | Problem] = []
            for segment, clip in zip(chosen, matched, strict=True):
                known = [names[mid] for mid in segment.mids if mid in names]
                if clip.path is None or clip.status != "found":
                    tasks.append(Problem(segment.key, str(clip.path or ""), clip.status, clip.detail))
                elif not known:
                    detail = f"none of its labels is known: {_with_nearest(segment.mids, names)}"
                    tasks.append(Problem(segment.key, str(clip.path), "unknown", detail))
                else:
                    tasks.append(_Task(segment, known, clip.path, clip.prompt, flac, sample_rate, min_seconds))
            if own:
                (out / f"{name}-report.json").unlink(missing_ok=True)  # of all parts, which is no longer true
                tasks = own.stretch(tasks)
            try:
                _write(run, tasks, workers, max_bytes, max_samples)
            except KeyboardInterrupt:
                print(f"\nStopped with {run.shards} shards finished. The same command resumes.", file=sys.stderr)
                raise SystemExit(130) from None
        run.print_report()
        if unknown:
            most = [label for label, _ in unknown.most_common(5)]
            more = f"; and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            print(f"Labels that are not known were left out: {_with_nearest(most, names)}{more}.")
    whole = merge_reports(out, name, own, settings) if own else run
    if own and whole:
        whole.print_report()
    if whole and not whole.samples:
        raise InputError(f"none of {len(chosen)} clips could be written; see '{whole.path('csv')}'.")


def _with_nearest(labels: Iterable[str], names: dict[str, str]) -> str:
    """List labels that are not known, each with the name that is spelled most like it."""
    nearest = {label: "".join(similar(label, names.values())) for label in labels}
    return "; ".join(f"'{label}'" + (f" (nearest: '{name}')" if name else "") for label, name in nearest.items())


def _nothing_found(first: Segment, matched: list[Clip], clips: Path) -> str:
    """The message where no segment has a clip that can be read."""
    text = f"--clips: '{clips}' has no clip of any of the {len(matched)} segments"
    if other := [clip.path for clip in matched if clip.path is not None]:
        return (
            f"{text} in a format that is read. {len(other):,} are there in another format ({count_suffixes(other)}), "
            f"such as '{other[0].name}': convert them to FLAC or WAV, for example with ffmpeg."
        )
    held = count_suffixes(name for *_, names in os.walk(clips) for name in names) or "no files"
    return (
        f"{text}; the first would be '{first.ytid}.wav' or '{first.ytid}_{first.start:g}.wav'. "
        f"The folder holds {held}. Archives must be unpacked first."
    )


# --- selection --------------------------------------------------------------------------------------------------------


def _select(
    segments: Path, class_labels: Path | None, ontology: Path | None, branch: str | None, labels: list[str] | None
) -> tuple[list[Segment], dict[str, str]]:
    """Choose the wanted segments, each once, and those of which no label is known; also return the labels' names."""
    if class_labels is None and ontology is None:
        raise InputError(
            "give --class_labels or --ontology: AudioSet's labels, their ids and names, are read from there."
        )
    tree = Ontology(ontology) if ontology else None
    names = {**(tree.names if tree else {}), **(read_class_labels(class_labels) if class_labels else {})}
    ids = {name.lower(): mid for mid, name in names.items()}  # a list may name its labels instead of giving their ids
    unique: dict[str, Segment] = {}
    for segment in read_segments(segments):
        mids = tuple(mid if mid in names else ids.get(mid.lower(), mid) for mid in segment.mids)
        unique.setdefault(segment.key, replace(segment, mids=mids))
    chosen = list(unique.values())
    wanted = []
    if tree is not None and branch is not None:
        wanted.append(tree.branch(branch))
    if labels:
        wanted.append(set(find_labels(labels, names, "--labels")))
    if not wanted:
        return chosen, names
    strange = [s for s in chosen if not any(mid in names for mid in s.mids)]
    chosen = [s for s in chosen if all(mids.intersection(s.mids) for mids in wanted)]
    if not chosen:
        unknown = list(dict.fromkeys(mid for s in strange for mid in s.mids))
        hint = f" Not known are {_with_nearest(unknown[:5], names)}." if unknown else ""
        raise InputError(
            f"no segment of '{segments}' has the wanted labels. See --labels, --ontology and --branch.{hint}"
        )
    return chosen + strange, names


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- one clip ---------------------------------------------------------------------------------------------------------


def encode_clip(task: _Task) -> tuple[bytes, str, bytes | None] | Problem:
    """Decode one whole clip and its audio prompt, and encode them if that is wanted.

    Returns:
        The bytes and the extension of an audio file and the bytes of its audio prompt, or why the clip cannot be used.
    """
    clip = _encode(task, task.path)
    if isinstance(clip, Problem) or task.prompt is None:
        return clip if isinstance(clip, Problem) else (*clip, None)
    prompt = _encode(task, task.prompt)
    if isinstance(prompt, Problem):
        return prompt
    if prompt[1] != clip[1]:
        detail = f"an audio prompt in {prompt[1]} for a clip in {clip[1]}: both need one format where --flac is false"
        return Problem(task.segment.key, str(task.prompt), "broken", detail)
    return (*clip, prompt[0])


def _encode(task: _Task, path: Path) -> tuple[bytes, str] | Problem:
    segment, file = task.segment, str(path)
    try:
        data = path.read_bytes()
        waveform, rate = load_audio(data)
    except (AudioError, OSError) as error:
        return Problem(segment.key, file, "broken", str(error))
    seconds, wanted = waveform.shape[-1] / rate, segment.end - segment.start
    if seconds < task.min_seconds:
        return Problem(segment.key, file, "short", f"{seconds:.3f} s; at least {task.min_seconds:g} s are wanted")
    if seconds > _LONGEST * wanted:
        detail = f"{seconds:.1f} s for a segment of {wanted:g} s: is it the whole video?"
        return Problem(segment.key, file, "broken", detail)
    if not task.flac:
        return data, path.suffix[1:].lower()
    mono = to_mono(waveform)
    if rate != task.sample_rate:
        mono = resample(mono, rate, task.sample_rate)
    encoded = io.BytesIO()
    soundfile.write(encoded, mono.clamp(-1, 1).numpy(), task.sample_rate, format="FLAC", subtype="PCM_16")
    return encoded.getvalue(), "flac"


# --- all clips --------------------------------------------------------------------------------------------------------


def _write(run: ShardRun, tasks: list[_Task | Problem], workers: int, max_bytes: int, max_samples: int) -> None:
    """Write all clips from `run.next` on."""
    run.save()
    first, samples, prompts, problems = run.next, run.samples, run.prompts, list(run.problems)
    pattern = str(run.out).replace("{", "{{").replace("}", "}}") + f"/{run.name}-{{:06d}}.tar"
    with (
        progress(len(tasks), run.name, "clip", initial=first) as bar,
        closing(in_order(encode_clip, (t for t in tasks[first:] if isinstance(t, _Task)), workers)) as results,
        ShardWriter(pattern, max_bytes, max_samples, run.shards, overwrite=True) as writer,
    ):
        for number, task in enumerate(tasks[first:], start=first):
            result = task if isinstance(task, Problem) else next(results)
            if isinstance(result, Problem):
                problems.append(result)
            elif isinstance(task, _Task):
                segment, finished = task.segment, len(writer.shards)
                fields = {"labels": task.labels, "ytid": segment.ytid, "start": segment.start, "end": segment.end}
                audio, extension, prompt = result
                writer.write(segment.key, audio, extension, fields, prompt)
                if len(writer.shards) > finished:  # this clip starts a shard, and all before it are safe
                    run.advance(number, samples, prompts, problems, writer.shards[-1])
                samples += 1
                prompts += prompt is not None
            bar.update()
        finished = len(writer.shards)
        writer.close()
        run.advance(len(tasks), samples, prompts, problems, *writer.shards[finished:])
        run.finish()
