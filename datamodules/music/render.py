"""The command that composes and renders music into shards: `python -m apa_lightning render --out folder ...`."""

import hashlib
import json
import math
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from apa_lightning.edit_jobs.parts import Part, missing_parts
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import file_lock, write_file
from apa_lightning.utils.progress import progress
from datamodules.music.clip import Plan, PromptKind, Recipe, compose, compose_prompt, has_prompt, plan
from datamodules.music.composition.events import Performance
from datamodules.music.composition.instruments import INSTRUMENTS
from datamodules.music.sound.encode import CODINGS, AudioFormat, encode
from datamodules.prepare.workers import in_order
from datamodules.ranges import check_range
from datamodules.shards.index import index_path
from datamodules.shards.writer import ShardWriter

if TYPE_CHECKING:
    import numpy as np

SETTINGS_FILE = "render.json"
_METADATA_BYTES = 4_000  # Of JSON and tar headers per clip, to which a second of music adds at most 600.


class _Shard(NamedTuple):
    """One shard to write."""

    path: Path
    split: str
    clips: range  # Numbers of its clips


def render(
    out: Path,
    clips: int = 200,
    seconds: float = 10.24,
    seed: int = 0,
    validation: float = 0.2,
    solo: float = 7.0,
    duet: float = 1.0,
    genre: float = 2.0,
    renditions: int = 1,
    prompts: float | None = None,
    prompt_kind: PromptKind = "melody",
    variety: float = 0.0,
    prompt_variety: float | None = None,
    captions: float = 0.0,
    audio_format: AudioFormat = "flac",
    soundfonts: list[Path] | None = None,
    clips_per_shard: int | None = None,
    max_shard_bytes: int = 500_000_000,
    workers: int = 0,
    part: str | None = None,
) -> None:
    """Compose music and render it into `train-*.tar` and `validation-*.tar` shards with AudioSet labels.

    Melodies on eight instruments, duets, and bands in eight genres, 16 kHz mono. Every clip depends only on `seed`,
    its split and its number, never on `workers`; validation clips have melodies of their own. Run the same command again
    to resume after a stop: finished shards (those with an index) are kept.

    Args:
        out: Folder for the shards; made if missing.
        clips: Number of clips, training and validation together. 351,563 clips of 10.24 s are 1,000 hours.
        seconds: Length of a clip.
        seed: Seed of every note and sound.
        validation: Share of the clips that goes into the validation shards.
        solo: Relative number of solo clips, the eight instruments in turn.
        duet: Relative number of duets: a melody with a second instrument's accompaniment.
        genre: Relative number of genre clips, the eight genres in turn.
        renditions: Instruments on which each solo melody is rendered, all from one performance (the JSON field
            `melody` groups them): ground truth for timbre transfer.
        prompts: Share of the clips with an audio prompt, `<key>.prompt.<extension>`; null: all clips if there are several
            renditions, else none.
        prompt_kind: What an audio prompt shares with its clip: the `melody`, alone, in the same time and on an instrument that
            does not play it in the clip; or the `sound`, another melody on the same instrument, or of another band of the
            genre.
        variety: How much tuning, tape, equalizers, microphones and noise change the sound: 0 clean, 1 as varied as
            recordings are.
        prompt_variety: The same for audio prompts, with lossy coding in addition; null: as `variety`. Rough prompts of clean
            clips teach an adapter to hear through a poor recording.
        captions: Share of the clips with a `caption` in a musician's words next to the labels; duets always have one.
        audio_format: Flac (lossless), ogg-opus (about 22 kbit/s), ogg-vorbis or wav.
        soundfonts: SoundFont 2 or 3 files with General MIDI programs; each clip takes one of them by chance.
            `pretty_midi` means the one that pretty_midi ships, the default.
        clips_per_shard: Clips in a shard, at most; fewer where max_shard_bytes would not hold them.
        max_shard_bytes: No shard grows beyond this.
        workers: Processes that render; 0 for one per core.
        part: Render only this part of the shards, such as 3/16, as one task of a job array. `slurm` takes the place of the task
            in SLURM's array.

    Raises:
        InputError: If a setting is out of range, a SoundFont is unusable, `out` holds another recipe's shards, or another
            process is rendering the same part.
        FileNotFoundError: If a SoundFont does not exist.
    """
    if prompts is None:
        prompts = float(renditions > 1)
    if prompt_variety is None:
        prompt_variety = variety
    recipe = Recipe(
        seed, seconds, (solo, duet, genre), renditions, prompts, prompt_kind, variety, prompt_variety, captions
    )
    _check(recipe, clips, validation, clips_per_shard, workers)
    one_part = Part.read(part)
    fonts = _soundfonts(soundfonts)
    shards = _shards(out, clips, validation, _capacity(recipe, audio_format, clips_per_shard, max_shard_bytes))
    with file_lock(_lock(out, "settings")):
        _remember(out, recipe, clips, validation, audio_format, fonts, len(shards[0].clips))
    own = one_part.every(shards) if one_part else shards
    with file_lock(
        _lock(out, f"render-{one_part.number}of{one_part.of}" if one_part else "render"), wait=False
    ) as held:
        if not held:
            share = "" if one_part else ", or let several processes share the work: --part 1/4, 2/4, ..."
            raise InputError(
                f"out: another process is rendering {'this part ' if one_part else ''}into '{out}'. Wait for it{share}."
            )
        missing = _missing(own)
        if len(missing) < len(own):
            print(f"{len(own) - len(missing)} of {len(own)} shards are finished already and are kept.")
        plans = (plan(recipe, shard.split, i) for shard in missing for i in shard.clips)
        work = partial(render_clip, recipe, soundfonts=fonts, audio_format=audio_format)
        workers = workers or os.cpu_count() or 1
        _write(missing, in_order(work, plans, 0 if workers == 1 else workers), CODINGS[audio_format].extension)
    if one_part and (others := [other for other in one_part.others() if _missing(other.every(shards))]):
        print(f"{out}: part {one_part}, {len(own)} of {len(shards)} shards, is finished. {missing_parts(others)}")
        return
    total = sum(shard.path.stat().st_size for shard in shards)
    hours = clips * seconds / 3600
    print(f"{out}: {clips} clips ({hours:.2f} hours) in {len(shards)} shards, {total / 2**20:.2f} MiB.")


class Rendered(NamedTuple):
    """One clip as it is written into a shard."""

    key: str
    audio: bytes  # The encoded audio file
    metadata: dict[str, Any]
    prompt: bytes | None  # The encoded audio prompt, if the clip has one


def render_clip(recipe: Recipe, planned: Plan, soundfonts: tuple[Path, ...], audio_format: AudioFormat) -> Rendered:
    """Compose, render and encode one clip."""
    from datamodules.music.sound.mix import SAMPLE_RATE, mix
    from datamodules.music.sound.recording import Recording, coded, draw_recording
    from datamodules.music.sound.soundfont import open_soundfont

    clip, name = compose(recipe, planned), f"{recipe.seed}/{planned.split}/{planned.index}"

    def render(
        performance: Performance, name: str, variety: float, soundfonts: Sequence[Path]
    ) -> "tuple[np.ndarray, Path]":
        rng = random.Random(f"{name}/sound")
        font = rng.choice(soundfonts)
        recording = draw_recording(random.Random(f"{name}/recording"), variety) if variety else Recording()
        return mix(performance, open_soundfont(font), rng, recording), font

    audio, font = render(clip.performance, name, recipe.variety, soundfonts)
    prompt = None
    if has_prompt(recipe, planned):
        fonts = soundfonts if recipe.prompt_kind == "melody" else (font,)
        rough, _ = render(compose_prompt(recipe, planned), f"{name}/prompt", recipe.prompt_variety, fonts)
        rough = coded(rough, SAMPLE_RATE, random.Random(f"{name}/coding"), recipe.prompt_variety)
        prompt = encode(rough, SAMPLE_RATE, audio_format, serial=planned.index + 1)
    player = clip.metadata.get("instrument") or clip.metadata["genre"]
    key = f"{planned.split}-{planned.index:07d}-{planned.kind}-{player.replace(' ', '-')}"
    data = encode(audio, SAMPLE_RATE, audio_format, serial=planned.index + 1)
    return Rendered(key, data, {**clip.metadata, "soundfont": font.stem}, prompt)


def _check(recipe: Recipe, clips: int, validation: float, clips_per_shard: int | None, workers: int) -> None:
    """Refuse settings outside their ranges before anything is written."""
    check_range("clips", clips, int, 1)
    check_range("seconds", recipe.seconds, int | float, 1, 600)
    check_range("renditions", recipe.renditions, int, 1, len(INSTRUMENTS))
    check_range("prompts", recipe.prompts, int | float, 0, 1)
    check_range("variety", recipe.variety, int | float, 0, 2)
    check_range("prompt_variety", recipe.prompt_variety, int | float, 0, 2)
    check_range("captions", recipe.captions, int | float, 0, 1)
    check_range("clips_per_shard", clips_per_shard, int | None, 1)
    check_range("workers", workers, int, 0)
    if not 0 <= validation < 1:
        raise InputError(f"validation: {validation}; give a share of at least 0 and below 1.")
    if not all(0 <= share < math.inf for share in recipe.shares) or sum(recipe.shares) == 0:
        raise InputError(f"solo, duet, genre: {recipe.shares}; give numbers of at least 0, and one of them above 0.")


def _soundfonts(paths: list[Path] | None) -> tuple[Path, ...]:
    """Absolute paths of the SoundFonts; each is opened so that a bad one is refused before work starts."""
    from datamodules.music.sound.soundfont import default_soundfont, open_soundfont

    try:
        import scipy  # noqa: F401
        import soundfile  # noqa: F401
    except ImportError as error:
        raise InputError(f"rendering needs {error.name}. Run: pip install 'apa_lightning[render]'") from None
    shipped = Path("pretty_midi")
    fonts = tuple(default_soundfont() if path == shipped else Path(path).absolute() for path in paths or [shipped])
    programs = sorted({program for instrument in INSTRUMENTS.values() for program in instrument.programs})
    for font in map(open_soundfont, fonts):
        for program in programs:
            font.regions(program, 60, 100)
        font.regions(0, 38, 100, drums=True)
    return fonts


def _capacity(recipe: Recipe, audio_format: AudioFormat, clips_per_shard: int | None, max_shard_bytes: int) -> int:
    """Number of clips that surely fit into a shard."""
    files = 1 + (recipe.prompts > 0)
    most = recipe.seconds * (files * CODINGS[audio_format].most_bytes + 600) + _METADATA_BYTES
    fitting = int(max_shard_bytes // most)
    if fitting < 1:
        raise InputError(
            f"max_shard_bytes: {max_shard_bytes}; one clip of {recipe.seconds} s may need {int(most)} bytes as "
            f"{audio_format}. Give at least that."
        )
    return min(fitting, clips_per_shard or fitting)


def _shards(out: Path, clips: int, validation: float, capacity: int) -> list[_Shard]:
    """All shards of the data set, clips spread evenly over those of a split."""
    held_out = min(round(clips * validation), clips - 1)
    shards = []
    for split, count in (("train", clips - held_out), ("validation", held_out)):
        number = math.ceil(count / capacity)
        for i in range(number):
            numbers = range(i * count // number, (i + 1) * count // number)
            shards.append(_Shard(Path(out) / f"{split}-{i:06d}.tar", split, numbers))
    return shards


def _missing(shards: Sequence[_Shard]) -> list[_Shard]:
    """Shards that are not finished: they have no index."""
    return [shard for shard in shards if not index_path(shard.path).exists()]


def _lock(out: Path, name: str) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    return out / f"{name}.lock"


def _remember(
    out: Path, recipe: Recipe, clips: int, validation: float, audio_format: str, fonts: tuple[Path, ...], first: int
) -> None:
    """Write the settings next to the shards, or refuse a folder that was started with other ones."""
    settings = {
        **asdict(recipe), "shares": list(recipe.shares), "clips": clips, "validation": validation,
        "audio_format": audio_format, "clips_in_first_shard": first,
        "soundfonts": [{"name": font.name, "sha256": hashlib.sha256(font.read_bytes()).hexdigest()} for font in fonts],
    }  # fmt: skip
    if not recipe.prompts:  # as the settings were before there were audio prompts
        del settings["prompts"], settings["prompt_kind"], settings["prompt_variety"]
    path = Path(out) / SETTINGS_FILE
    if path.exists():
        try:
            before = json.loads(path.read_text())
        except ValueError:
            raise InputError(f"out: '{path}' is not readable as JSON. Choose an empty folder or remove it.") from None
        other = [name for name in settings if not isinstance(before, dict) or before.get(name) != settings[name]]
        if other:
            raise InputError(
                f"out: '{out}' was started with another {', '.join(other)} (see {path}). Choose an empty folder, or the "
                "same settings."
            )
        return
    if any(Path(out).glob("*.tar")):
        raise InputError(f"out: '{out}' holds shards that this command did not write. Choose an empty folder.")
    write_file(path, json.dumps(settings, indent=1, sort_keys=True) + "\n", sole_writer=True)


def _write(shards: list[_Shard], rendered: Iterator[Rendered], extension: str) -> None:
    """Write rendered clips, which come in order, into their shards."""
    with progress(sum(len(shard.clips) for shard in shards), "rendering", "clip", shown=bool(shards)) as bar:
        for shard in shards:
            pattern = shard.path.with_name(f"{shard.split}-{{:06d}}.tar")
            number = int(shard.path.stem.rsplit("-", 1)[1])
            with ShardWriter(pattern, max_bytes=2**62, max_samples=len(shard.clips), start=number) as writer:
                for _ in shard.clips:
                    clip = next(rendered)
                    writer.write(clip.key, clip.audio, extension, clip.metadata, clip.prompt)
                    bar.update()
