"""Shards from AudioSet's files: filters, dead clips, and resuming after an interruption."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from shard_tools import encode, kill_own_process, read_indexed, tone

from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import file_lock
from datamodules.prepare import audioset_shards
from datamodules.prepare.audioset_shards import make_shards


def test_shards_of_music_only_as_mono_flac(source, capsys: pytest.CaptureFixture[str]) -> None:
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


def test_original_bytes_are_kept_by_choice(source) -> None:
    source.lines('a, 0, 1.2, "/m/violin"', 'b, 0, 1.2, "/m/violin"')
    path = source.clip("a.mp3", rate=44_100)
    opus = encode(tone(1.2, 48_000), 48_000, "ogg", "OPUS")
    source.clips.joinpath("b.opus").write_bytes(opus)
    source.run(flac=False)
    assert source.samples()["a_0"]["mp3"] == path.read_bytes() and source.samples()["b_0"]["opus"] == opus
    (a, b), faults = read_indexed(source.out / "train-000000.tar")
    assert not faults and float(b["waveform"].std()) == pytest.approx(float(a["waveform"].std()), rel=0.02)


@pytest.mark.parametrize("flac", [True, False])
def test_a_prompt_next_to_a_clip_is_kept(source, flac: bool, capsys: pytest.CaptureFixture[str]) -> None:
    source.lines(*(f'{name}, 0, 1.2, "/m/violin"' for name in "abcde"))
    source.clip("a.wav"), source.clip("a.prompt.wav", frequency=220, rate=44_100)
    source.clip("sub/b_0.wav"), source.clip("sub/b_0.Prompt.wav", frequency=220)
    source.clip("c.wav")
    source.clip("d.wav"), (source.clips / "d.prompt.wav").write_bytes(b"no sound")
    source.clip("e.prompt.wav")  # not a clip of its own
    source.run(flac=flac, max_samples=1)
    samples, kind = source.samples(), "flac" if flac else "wav"
    assert {key: set(members) for key, members in samples.items()} == {
        "a_0": {kind, f"prompt.{kind}", "json"}, "b_0": {kind, f"prompt.{kind}", "json"}, "c_0": {kind, "json"},
    }  # fmt: skip
    sound, rate = soundfile.read(io.BytesIO(samples["a_0"][f"prompt.{kind}"]))
    assert rate == (16_000 if flac else 44_100)
    assert abs(np.fft.rfft(sound[:rate])).argmax() == 220
    assert [(row["key"], row["status"], Path(row["file"]).name) for row in source.report()] == [
        ("d_0", "broken", "d.prompt.wav"), ("e_0", "missing", ""),
    ]  # fmt: skip
    assert "written          3  in 3 shards" in (out := capsys.readouterr().out) and "2 with an audio prompt" in out


def test_a_prompt_in_another_format_than_its_clip_is_told(source) -> None:
    source.lines('a, 0, 1.2, "/m/violin"', 'b, 0, 1.2, "/m/violin"')
    source.clip("a.wav"), source.clip("a.prompt.flac"), source.clip("b.wav")
    source.run(flac=False)
    assert [(row["key"], row["status"]) for row in source.report()] == [("a_0", "broken")]
    source.run(overwrite=True)
    assert set(source.samples()) == {"a_0", "b_0"}


def test_labels_by_name_or_id(source) -> None:
    source.lines('a, 0, 1.2, "/m/violin"', 'b, 0, 1.2, "/t/dd1"', 'c, 0, 1.2, "/m/music"')
    for name in "abc":
        source.clip(f"{name}.wav")
    source.run(labels=["violin, fiddle", "/t/dd1"])
    assert set(source.samples()) == {"a_0", "b_0"}
    with pytest.raises(InputError, match="no label 'Violin'"):
        source.run(labels=["Violin"], overwrite=True)


def test_every_lost_clip_is_counted_and_named(source, capsys: pytest.CaptureFixture[str]) -> None:
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
        "whole_0": "broken", "nameless_0": "unknown",
    }  # fmt: skip
    assert all(row["detail"] for row in source.report())
    out = capsys.readouterr().out
    assert (
        "missing          1" in out
        and "convert          0" in out
        and "unknown          1" in out
        and "short          1" in out
        and "broken          4" in out
        and "Labels that are not known were left out: '/m/unknown'." in out
    )
    state = json.loads((source.out / "train-report.json").read_text())
    assert state["complete"] and state["counts"] == {
        "written": 1, "missing": 1, "convert": 0, "unknown": 1, "short": 1, "broken": 4,
    }  # fmt: skip


def test_clips_in_another_format_are_counted_and_named(source, capsys: pytest.CaptureFixture[str]) -> None:
    source.lines(*(f'{name}, 0, 1.2, "/m/violin"' for name in "abcd"))
    for name in ("a.m4a", "b.m4a", "c.webm"):
        (source.clips / name).touch()
    with pytest.raises(
        InputError, match=r"3 are there in another format \(2 .m4a, 1 .webm\), such as 'a.m4a': convert"
    ):
        source.run()
    source.clip("d.wav")
    source.run()
    assert {(row["key"], row["status"], Path(row["file"]).name) for row in source.report()} == {
        ("a_0", "convert", "a.m4a"), ("b_0", "convert", "b.m4a"), ("c_0", "convert", "c.webm"),
    }  # fmt: skip
    assert "convert          3  there in another format (2 .m4a, 1 .webm): convert them" in capsys.readouterr().out


def test_a_folder_of_archives_says_what_it_holds(source) -> None:
    source.lines('a, 0, 1.2, "/m/violin"')
    for name in ("bal_train00.tar", "bal_train01.tar", "x.parquet"):
        (source.clips / name).touch()
    with pytest.raises(InputError, match=r"holds 2 .tar, 1 .parquet. Archives must be unpacked first"):
        source.run()


def test_a_list_may_name_its_labels(source) -> None:
    source.lines('a, 0, 1.2, "Violin, fiddle;Speech"', "b, 0, 1.2, speech")
    source.clip("a.wav")
    source.run(labels=["/m/violin"])
    assert json.loads(source.samples()["a_0"]["json"])["labels"] == ["Violin, fiddle", "Speech"]


@pytest.mark.parametrize("branch", [True, False])
def test_labels_that_are_not_known_are_told_with_the_nearest(source, branch: bool, capsys) -> None:
    source.lines('a, 0, 1.2, "Violin, fiddle;Spech"', "b, 0, 1.2, violin", "c, 0, 1.2, Xyzzy", 'd, 0, 1.2, "/m/violin"')
    for name in "abcd":
        source.clip(f"{name}.wav")
    ontology = {"ontology": source.ontology} if branch else {}  # it cannot tell whether they lie in the branch
    source.run(**ontology)
    assert set(source.samples()) == {"a_0", "d_0"}
    assert {row["key"]: (row["status"], row["detail"]) for row in source.report()} == {
        "b_0": ("unknown", "none of its labels is known: 'violin' (nearest: 'Violin, fiddle')"),
        "c_0": ("unknown", "none of its labels is known: 'Xyzzy'"),
    }
    out = capsys.readouterr().out
    assert "left out: 'Spech' (nearest: 'Speech'); 'violin' (nearest: 'Violin, fiddle'); 'Xyzzy'." in out
    source.lines("b, 0, 1.2, violin")
    if branch:
        with pytest.raises(
            InputError, match=r"has the wanted labels.* Not known are 'violin' \(nearest: 'Violin, fiddle'\)"
        ):
            source.run(**ontology, overwrite=True)


def test_workers_change_nothing(source) -> None:
    source.many(7)
    source.run(max_samples=3, workers=0)
    one = {p.name: p.read_bytes() for p in source.out.glob("*.tar")}
    source.out = source.out.with_name("two")
    source.run(max_samples=3, workers=2)
    assert {p.name: p.read_bytes() for p in source.out.glob("*.tar")} == one and len(one) == 3


@pytest.mark.parametrize("stop_at", [0, 2, 3, 5, 9])
def test_interrupted_and_run_again(source, monkeypatch: pytest.MonkeyPatch, stop_at: int) -> None:
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


def test_killed_and_run_again(source) -> None:
    source.many(40)
    source.run(max_samples=4)
    whole = {p.name: p.read_bytes() for p in source.out.iterdir()}
    source.out = source.out.with_name("killed")
    slow = (
        "import sys, time; from pathlib import Path; from datamodules.prepare import audioset_shards as a\n"
        "work = a.encode_clip\n"
        "def slowly(task):\n    time.sleep(0.02)\n    return work(task)\n"
        "a.encode_clip = slowly\n"
        "a.make_shards(*map(Path, sys.argv[1:]), workers=0, max_samples=4)\n"
    )
    arguments = [str(p) for p in (source.segments, source.clips, source.out, source.classes)]
    process = subprocess.Popen([sys.executable, "-c", slow, *arguments], cwd=Path(__file__).parents[3])
    while process.poll() is None and not (source.out / "train-000002.index.json").exists():
        time.sleep(0.01)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (source.out / "train-000009.tar").exists()
    source.run(max_samples=4)
    assert {p.name: p.read_bytes() for p in source.out.iterdir()} == whole


def test_another_run_s_folder_is_refused_and_overwriting_leaves_no_old_shards(source) -> None:
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


def test_two_at_once_are_refused(source) -> None:
    source.many(1)
    source.out.mkdir()
    with file_lock(source.out / "train.lock"), pytest.raises(InputError, match="another process"):
        source.run()
    source.run()
    assert not list(source.out.glob("*.lock"))


def test_settings_that_cannot_be(source, tmp_path: Path) -> None:
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
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        make_shards(source.segments, tmp_path / "none", source.out, source.classes)
    (source.clips / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match="none of 1 clips could be written"):
        source.run()


def test_a_killed_worker_is_one_message(source, monkeypatch: pytest.MonkeyPatch) -> None:
    source.many(3)
    monkeypatch.setattr(audioset_shards, "encode_clip", kill_own_process)
    with pytest.raises(InputError, match="worker process was killed"):
        source.run(workers=1)
