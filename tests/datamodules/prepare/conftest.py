"""A small AudioSet on disk: its lists, its ontology and a folder of clips."""

import csv
import io
import json
from pathlib import Path

import pytest
from shard_tools import encode, tone

from datamodules.prepare.audioset_shards import make_shards
from datamodules.shards.index import read_index

HEADER = """# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=3, num_segs=3, num_unique_labels=4, num_positive_labels=5
# YTID, start_seconds, end_seconds, positive_labels
"""
CLASSES = """index,mid,display_name
0,/m/music,"Music"
1,/m/violin,"Violin, fiddle"
2,/m/speech,"Speech"
3,/t/dd1,"Male speech, man speaking"
"""
ONTOLOGY = [
    {"id": "/m/music", "name": "Music", "child_ids": ["/m/string", "/m/music"]},  # the loop must not hang
    {"id": "/m/string", "name": "Bowed string instrument", "child_ids": ["/m/violin"]},
    {"id": "/m/violin", "name": "Violin, fiddle", "child_ids": []},
    {"id": "/m/speech", "name": "Speech", "child_ids": ["/t/dd1"]},
    {"id": "/t/dd1", "name": "Male speech, man speaking", "child_ids": []},
]


class Source:
    """A little AudioSet on disk."""

    def __init__(self, root: Path) -> None:
        self.segments, self.classes, self.ontology = root / "segments.csv", root / "classes.csv", root / "ontology.json"
        self.clips, self.out = root / "clips", root / "out"
        self.clips.mkdir()
        self.classes.write_text(CLASSES)
        self.ontology.write_text(json.dumps(ONTOLOGY))

    def lines(self, *lines: str) -> None:
        self.segments.write_text(HEADER + "".join(line + "\n" for line in lines))

    def many(self, number: int, seconds: float = 1.2) -> None:
        self.lines(*(f'clip{i:07d}, {i}.000, {i + seconds:.3f}, "/m/violin"' for i in range(number)))
        for i in range(number):
            self.clip(f"clip{i:07d}_{i}.wav", seconds, 200 + 10 * i)

    def clip(self, name: str, seconds: float = 1.2, frequency: float = 440.0, rate: int = 16_000) -> Path:
        path = self.clips / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode(tone(seconds, rate, frequency), rate, path.suffix[1:].lower()))
        return path

    def run(self, **options: object) -> None:
        make_shards(self.segments, self.clips, self.out, self.classes, **{"workers": 0, **options})  # type: ignore[arg-type]

    def samples(self, name: str = "train") -> dict[str, dict]:
        found = {}
        for shard in sorted(self.out.glob(f"{name}-*.tar")):
            data = shard.read_bytes()
            for member in read_index(shard).members:
                kind = member.name.removeprefix(member.key + ".")
                found.setdefault(member.key, {})[kind] = data[member.offset :][: member.size]
        return found

    def report(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO((self.out / "train-report.csv").read_text())))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    """An empty AudioSet; tests add its lines and clips."""
    return Source(tmp_path)
