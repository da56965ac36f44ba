"""The commands that make shards, small."""

from functools import cache
from pathlib import Path

from random_folders import scratch
from recordings import tone
from soundfont_tools import write_soundfont

Arguments = list[object]


@cache
def clips() -> Path:
    """A little AudioSet on disk: nine clips for three shards."""
    folder = scratch() / "audioset"
    for i in range(9):
        tone(folder / f"clips/clip{i:07d}_{i}.wav", 1.2, 200 + 10 * i)
    lines = [f'clip{i:07d}, {i}.000, {i + 1.2:.3f}, "/m/music"' for i in range(9)]
    (folder / "segments.csv").write_text("# YTID, start_seconds, end_seconds, labels\n" + "\n".join(lines) + "\n")
    (folder / "classes.csv").write_text('index,mid,display_name\n0,/m/music,"Music"\n')
    return folder


def shards(folder: Path) -> Arguments:
    of = clips()
    return [
        "shards", "--segments", of / "segments.csv", "--clips", of / "clips", "--class_labels", of / "classes.csv",
        "--branch=null", f"--out={folder}", "--max_samples=3", "--workers=1",
    ]  # fmt: skip


def render(folder: Path) -> Arguments:
    soundfont = scratch() / "tiny.sf2"
    return [
        "render", f"--out={folder}", "--clips=6", "--seconds=1", "--validation=0", "--clips_per_shard=2", "--workers=1",
        f"--soundfonts=[{soundfont if soundfont.exists() else write_soundfont(soundfont)}]",
    ]  # fmt: skip
