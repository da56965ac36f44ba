"""From AudioSet's files to shards: names, filters, dead clips, and going on after an interruption."""

import csv
import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from shard_tools import encode, kill_own_process, tone

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import file_lock
from datamodules.prepare import audioset_shards
from datamodules.prepare.audioset_files import Ontology, Segment, match_clips, read_class_labels, read_segments
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
                kind = member.name.rpartition(".")[2]
                found.setdefault(member.key, {})[kind] = data[member.offset :][: member.size]
        return found

    def report(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO((self.out / "train-report.csv").read_text())))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


# --- reading AudioSet's lists -----------------------------------------------------------------------------------------


def test_segment_list(source: Source) -> None:
    source.lines('-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw,/m/0k4j"', "", 'a_b,0.5,10,"/m/x"')
    assert read_segments(source.segments) == [
        Segment("-0RWZT-miFs", 420.0, 430.0, ("/m/03v3yw", "/m/0k4j")),
        Segment("a_b", 0.5, 10.0, ("/m/x",)),
    ]
    assert read_segments(source.segments)[0].key == "-0RWZT-miFs_420000"


def test_every_bad_line_is_named(source: Source) -> None:
    source.lines(
        'a, 0, 10, "/m/x"', 'b, 0, "/m/x"', 'c, ten, 20, "/m/x"', 'd, 20, 10, "/m/x"', 'e, 0, 10, ""',
        '../f, 0, 10, "/m/x"', 'g, nan, 10, "/m/x"', 'h, 0, 10, "/m/x',
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        read_segments(source.segments)
    message = str(caught.value)
    assert "segments.csv" in message and "line 5: 3 columns" in message and "'../f' is no YouTube id" in message
    assert "line 6" in message and "line 7" in message and "line 8" in message and "and 1 more lines" in message


def test_lists_that_are_none(source: Source, tmp_path: Path) -> None:
    for content in (b"", b"# only a comment\n", b"\xff\xfe\x00"):
        source.segments.write_bytes(content)
        with pytest.raises(InputError, match=r"segments.csv"):
            read_segments(source.segments)
    with pytest.raises(FileNotFoundError):
        read_segments(tmp_path / "none.csv")
    source.classes.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"classes.csv"):
        read_class_labels(source.classes)
    for text in ("{", "[1]", '[{"id": 1}]', '{"a": 1}'):
        source.ontology.write_text(text)
        with pytest.raises(InputError, match=r"ontology.json"):
            Ontology(source.ontology)


def test_names_hold_commas_and_branches_hold_their_children(source: Source) -> None:
    assert read_class_labels(source.classes)["/m/violin"] == "Violin, fiddle"
    tree = Ontology(source.ontology)
    assert tree.branch("music") == tree.branch("/m/music") == {"/m/music", "/m/string", "/m/violin"}
    with pytest.raises(InputError, match=r"no label 'Musik'.* Similar: Music"):
        tree.branch("Musik")


# --- names of clips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "v.wav", "v_30.wav", "v_30.0.flac", "v_30.000.ogg", "v_30000.mp3", "v_30_40.wav", "v_30.000_40.000.WAV",
        "sub/v_30000_40000.wav",
    ],
)  # fmt: skip
def test_spellings_of_a_clip(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    assert match_clips([Segment("v", 30.0, 40.0, ("m",))], tmp_path) == [(tmp_path / name, "")]


@pytest.mark.parametrize("name", ["v_31.wav", "v_3.wav", "v_300.wav", "V_30.wav", "v30.wav", "v_30.m4a", "v_030.wav"])
def test_other_names_are_not_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    ((path, why),) = match_clips([Segment("v", 30.0, 40.0, ("m",))], tmp_path)
    assert path is None and ("convert" in why if name.endswith("m4a") else why == "no such file")


def test_seconds_come_before_milliseconds_and_doubt_is_said(tmp_path: Path) -> None:
    early, late = Segment("v", 30.0, 40.0, ("m",)), Segment("v", 30_000.0, 30_010.0, ("m",))
    (tmp_path / "v_30000.wav").touch()
    (first, why), (second, _) = match_clips([early, late], tmp_path)
    assert first is None and "fits several segments" in why and second == tmp_path / "v_30000.wav"
    (tmp_path / "v_30.wav").touch()
    assert [path and path.name for path, _ in match_clips([early, late], tmp_path)] == ["v_30.wav", "v_30000.wav"]
    (tmp_path / "w.wav").touch()
    two = [Segment("w", 0.0, 10.0, ("m",)), Segment("w", 10.0, 20.0, ("m",))]
    assert [path for path, _ in match_clips(two, tmp_path)] == [None, None]


def test_a_video_id_may_end_like_a_start(tmp_path: Path) -> None:
    (tmp_path / "ab_30.wav").touch()
    (tmp_path / "ab_30_5.wav").touch()
    segments = [Segment("ab_30", 5.0, 15.0, ("m",)), Segment("ab", 12.0, 20.0, ("m",))]
    assert [path and path.name for path, _ in match_clips(segments, tmp_path)] == ["ab_30_5.wav", None]


# --- making shards ----------------------------------------------------------------------------------------------------


def test_shards_of_music_only_as_mono_flac(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    source.lines('viol, 30, 31.2, "/m/violin,/m/speech"', 'talk, 0, 10, "/m/speech"', 'song, 0, 1, "/m/music"')
    source.clips.joinpath("viol_30.000.wav").write_bytes(encode(tone(1.2, 44_100, channels=2), 44_100, "wav"))
    source.clip("talk.wav")
    source.clip("song.ogg")
    source.run(ontology=source.ontology)
    samples = source.samples()
    assert set(samples) == {"viol_30000", "song_0"}
    assert json.loads(samples["viol_30000"]["json"]) == {
        "labels": ["Violin, fiddle", "Speech"], "ytid": "viol", "start": 30.0, "end": 31.2,
    }  # fmt: skip
    audio, rate = soundfile.read(io.BytesIO(samples["viol_30000"]["flac"]), always_2d=True)
    assert rate == 16_000 and audio.shape == (19_200, 1) and 0.45 < abs(audio).max() < 0.55
    assert "written          2  in 1 shards" in capsys.readouterr().out


def test_original_bytes_are_kept_by_choice(source: Source) -> None:
    source.lines('a, 0, 1.2, "/m/violin"')
    path = source.clip("a.mp3", rate=44_100)
    source.run(flac=False)
    assert source.samples()["a_0"]["mp3"] == path.read_bytes()


def test_labels_by_name_or_id(source: Source) -> None:
    source.lines('a, 0, 1.2, "/m/violin"', 'b, 0, 1.2, "/t/dd1"', 'c, 0, 1.2, "/m/music"')
    for name in "abc":
        source.clip(f"{name}.wav")
    source.run(labels=["violin, fiddle", "/t/dd1"])
    assert set(source.samples()) == {"a_0", "b_0"}
    with pytest.raises(InputError, match="no label 'Violin'"):
        source.run(labels=["Violin"], overwrite=True)


def test_every_lost_clip_is_counted_and_named(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f'{name}, 0, 1.2, "/m/violin"' for name in ("good", "dead", "short", "text", "cut", "empty", "whole")]
    source.lines(*lines, 'nameless, 0, 1.2, "/m/unknown"', 'good, 0, 1.2, "/m/violin"')
    source.clip("good.wav")
    source.clip("nameless.wav")
    source.clip("short.wav", seconds=0.05)
    source.clip("whole.wav", seconds=4)
    (source.clips / "text.wav").write_text("<html>not found</html>")
    (source.clips / "empty.flac").touch()
    cut = source.clip("cut.flac")
    cut.write_bytes(cut.read_bytes()[:-2000])
    source.run()
    assert set(source.samples()) == {"good_0"}
    assert {row["key"]: row["status"] for row in source.report()} == {
        "dead_0": "missing", "short_0": "short", "text_0": "broken", "cut_0": "broken", "empty_0": "broken",
        "whole_0": "broken", "nameless_0": "broken",
    }  # fmt: skip
    assert all(row["detail"] for row in source.report())
    out = capsys.readouterr().out
    assert "missing          1" in out and "short          1" in out and "broken          5" in out
    state = json.loads((source.out / "train-report.json").read_text())
    assert state["complete"] and state["counts"] == {"written": 1, "missing": 1, "short": 1, "broken": 5}


def test_workers_change_nothing(source: Source) -> None:
    source.many(7)
    source.run(max_samples=3, workers=0)
    one = {p.name: p.read_bytes() for p in source.out.glob("*.tar")}
    source.out = source.out.with_name("two")
    source.run(max_samples=3, workers=2)
    assert {p.name: p.read_bytes() for p in source.out.glob("*.tar")} == one and len(one) == 3


@pytest.mark.parametrize("stop_at", [0, 2, 3, 5, 9])
def test_interrupted_and_run_again(source: Source, monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
    source.many(10)
    (source.clips / "clip0000001_1.wav").unlink()
    (source.clips / "clip0000006_6.wav").write_bytes(b"")
    source.run(max_samples=3)
    whole = {p.name: p.read_bytes() for p in source.out.iterdir()}
    source.out = source.out.with_name("again")
    work, calls = audioset_shards.encode_clip, []

    def interrupted(task: object) -> object:
        calls.append(task)
        if len(calls) == stop_at + 1:
            raise KeyboardInterrupt
        return work(task)

    with monkeypatch.context() as patch:
        patch.setattr(audioset_shards, "encode_clip", interrupted)
        if stop_at < 9:
            with pytest.raises(SystemExit) as caught:
                source.run(max_samples=3)
            assert caught.value.code == 130
    stamps = {p.name: p.stat().st_mtime_ns for p in source.out.glob("*.tar")}
    assert not list(source.out.glob(".*"))
    source.run(max_samples=3)
    assert {p.name: p.read_bytes() for p in source.out.iterdir()} == whole
    assert all(source.out.joinpath(name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    source.run(max_samples=3)  # complete: nothing is done again
    assert {p.name: p.read_bytes() for p in source.out.iterdir()} == whole


def test_killed_and_run_again(source: Source) -> None:
    source.many(40)
    source.run(max_samples=4)
    whole = {p.name: p.read_bytes() for p in source.out.iterdir()}
    source.out = source.out.with_name("killed")
    slow = (
        "import sys, time; from pathlib import Path; from datamodules import audioset_shards as a\n"
        "work = a.encode_clip\n"
        "def slowly(task):\n    time.sleep(0.02)\n    return work(task)\n"
        "a.encode_clip = slowly\n"
        "a.make_shards(*map(Path, sys.argv[1:]), workers=0, max_samples=4)\n"
    )
    arguments = [str(p) for p in (source.segments, source.clips, source.out, source.classes)]
    process = subprocess.Popen([sys.executable, "-c", slow, *arguments], cwd=Path(__file__).parents[3])
    while process.poll() is None and not (source.out / "train-000002.index.json").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (source.out / "train-000009.tar").exists()
    source.run(max_samples=4)
    assert {p.name: p.read_bytes() for p in source.out.iterdir()} == whole


def test_another_run_s_folder_is_refused_and_overwriting_leaves_no_old_shards(source: Source) -> None:
    source.many(4)
    source.run(max_samples=1)
    with pytest.raises(InputError, match=r"another max_samples.*--overwrite"):
        source.run(max_samples=2)
    source.run(max_samples=2, overwrite=True)
    assert sorted(p.name for p in source.out.glob("*.tar")) == ["train-000000.tar", "train-000001.tar"]
    (source.out / "train-000000.index.json").rename(source.out / "away")
    with pytest.raises(InputError, match=r"train-000000.tar' was made and is gone"):
        source.run(max_samples=2)
    (source.out / "away").rename(source.out / "train-000000.index.json")
    (source.out / "train-report.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        source.run(max_samples=2)
    (source.out / "train-report.json").unlink()
    with pytest.raises(InputError, match="no report says"):
        source.run(max_samples=2)


def test_two_at_once_are_refused(source: Source) -> None:
    source.many(1)
    source.out.mkdir()
    with file_lock(source.out / "train.lock"), pytest.raises(InputError, match="another process"):
        source.run()
    source.run()
    assert not list(source.out.glob("*.lock"))


def test_settings_that_cannot_be(source: Source, tmp_path: Path) -> None:
    source.lines('a, 0, 1.2, "/m/violin"')
    with pytest.raises(InputError, match=r"no clip of any of the 1 segments; the first would be 'a.wav' or 'a_0.wav'"):
        source.run()
    source.clip("a.wav")
    for options, message in (
        ({"name": "../x"}, "--name"),
        ({"sample_rate": 0}, "sample_rate: 0; give a whole number between 4000 and 384000"),
        ({"workers": -1}, "workers: -1"),
        ({"min_seconds": -1.0}, "min_seconds: -1.0"),
        ({"max_samples": 0}, "max_samples"),
        ({"labels": ["Speech"]}, "wanted labels"),
    ):
        with pytest.raises(InputError, match=message):
            source.run(**options)
    with pytest.raises(InputError, match="--class_labels or --ontology"):
        make_shards(source.segments, source.clips, source.out)
    for name in ("segments", "class_labels", "ontology"):
        paths = {"segments": source.segments, "class_labels": source.classes, name: tmp_path / "none"}
        with pytest.raises(FileNotFoundError, match=f"--{name}: there is no file '.*none'"):
            make_shards(clips=source.clips, out=source.out, **paths)
    with pytest.raises(FileNotFoundError, match="is no folder"):
        make_shards(source.segments, tmp_path / "none", source.out, source.classes)
    (source.clips / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match="none of 1 clips could be written"):
        source.run()


def test_a_killed_worker_is_one_message(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.many(3)
    monkeypatch.setattr(audioset_shards, "encode_clip", kill_own_process)
    with pytest.raises(InputError, match="worker process was killed"):
        source.run(workers=1)
