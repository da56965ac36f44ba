"""Recordings in a folder: the files that can be read, and the number of sound files that cannot."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

#: What soundfile reads; in shards the first ones come first.
AUDIO_SUFFIXES = (
    *(".flac", ".wav", ".ogg", ".mp3", ".opus", ".oga", ".aif", ".aiff", ".aifc", ".caf", ".au", ".snd"),
    *(".w64", ".rf64", ".bw64", ".bwf", ".wave", ".mp2", ".mpga", ".voc", ".sph", ".nist"),
)
#: Sound, and video with sound, that soundfile does not read.
OTHER_SUFFIXES = (
    *(".m4a", ".mp4", ".aac", ".wma", ".m4b", ".m4v", ".m4r", ".mov", ".webm", ".weba", ".mka", ".mkv", ".avi", ".flv"),
    *(".3gp", ".amr", ".ac3", ".eac3", ".dts", ".ape", ".wv", ".mpc", ".tta", ".tak", ".alac", ".spx", ".ra", ".rm"),
    *(".asf", ".wmv", ".dsf", ".dff", ".adts", ".loas", ".mpg", ".mpeg", ".ts"),
)


class FolderAudio(NamedTuple):
    """The sound files of a folder.

    Attributes:
        files: Recordings that can be read, in order.
        unread: Number of files by the suffix of a format that is not read.
        deeper: Number of recordings in subfolders that were not searched.
    """

    files: list[Path]
    unread: Counter[str]
    deeper: int = 0

    @property
    def left_out(self) -> str:
        """A phrase that counts the files that are not read and says how to convert them; empty if there are none."""
        if not self.unread:
            return ""
        suffix = next(iter(self.unread))
        counts = " and ".join(f"{count} {suffix}" for suffix, count in self.unread.most_common())
        return f"{counts} not read: convert to FLAC or WAV, for example with `ffmpeg -i SONG{suffix} SONG.flac`"


def find_audio(folder: Path, recursive: bool = False, leave_out: Path | None = None) -> FolderAudio:
    """The sound files of a folder by their suffixes; hidden files and folders are left out.

    Args:
        folder: The folder.
        recursive: Whether to search its subfolders too.
        leave_out: A subfolder that is not searched.
    """
    files: list[Path] = []
    unread: Counter[str] = Counter()
    deeper = 0
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        shown = [name for name in sorted(folders) if not name.startswith(".")]
        folders[:] = [name for name in shown if leave_out is None or (here / name).resolve() != leave_out.resolve()]
        for name in sorted(names):
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if here != Path(folder) and not recursive:
                deeper += suffix in AUDIO_SUFFIXES
            elif suffix in AUDIO_SUFFIXES:
                files.append(here / name)
            elif suffix in OTHER_SUFFIXES:
                unread[suffix] += 1
    return FolderAudio(files, unread, deeper)
