"""Building a listening test: a whole and blind page, and what is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from listening_tools import SYSTEMS, TASKS, page_data, read_rows, write_evaluation, write_rows

from apa_lightning.errors import InputError
from apa_lightning.listening_test.attention import RULE
from apa_lightning.listening_test.build import build
from apa_lightning.listening_test.key import HIDDEN_SOURCE, Key


def test_the_page_is_whole_and_blind(test, evaluation):
    data, key = page_data(test), Key.load(test / "key.json")
    assert [one["text"] for one in data["sets"]].count(TASKS["genre"]) == 2
    assert sorted(token for one in data["sets"] for token in one["items"]) == sorted(key.items)
    sources = {one["source"] for one in data["sets"]}
    assert {path.stem for path in (test / "page" / "audio").iterdir()} == sources | key.items.keys()
    page = (test / "page" / "index.html").read_text()
    assert not [
        word for word in (*SYSTEMS, "piano_0", HIDDEN_SOURCE, "repeat", "http", str(evaluation)) if word in page
    ]
    assert not list((test / "page").rglob("key.json"))
    assert RULE in (test / "README.txt").read_text()
    for one in data["sets"]:
        items = [key.items[token] for token in one["items"]]
        assert {item.system for item in items} == {"adapter", "text_only", HIDDEN_SOURCE}
        assert [item.control for item in items].count("source") == 1
    repeats = [item for item in key.items.values() if item.control == "repeat"]
    assert sorted(item.task for item in repeats) == sorted(TASKS)
    samples, _ = soundfile.read(evaluation / "audio" / "timbre" / "adapter" / "piano_0-to-target.wav")
    copies = [
        soundfile.read(test / "page" / "audio" / f"{token}.wav")[0]
        for token, item in key.items.items()
        if item[:4] == ("timbre", "piano_0-to-target", "piano_0", "adapter")
    ]
    assert all(np.array_equal(samples, copy) for copy in copies)


def test_the_seed_chooses_the_sets_and_every_source_comes_once(evaluation, tmp_path):
    rows = read_rows(evaluation)
    swept = [row | {"system": "adapter ap_scale=0.2"} for row in rows if row["system"] == "adapter"]  # not by default
    write_rows(evaluation, rows + swept + [row | {"id": row["id"] + "-again"} for row in rows])
    chosen = []
    for number in range(2):
        build(evaluation, tmp_path / str(number), sets_per_task=3, seed=5)
        items = Key.load(tmp_path / str(number) / "key.json").items.values()
        chosen.append({(item.task, item.id) for item in items})
        assert {item.source for item in items} == {"piano_0", "piano_1", "piano_2"}
    assert chosen[0] == chosen[1]


def test_incomplete_sets_are_left_out_and_named(evaluation, tmp_path, capsys):
    rows = [row for row in read_rows(evaluation) if (row["system"], row["source"]) != ("adapter", "piano_0")]
    write_rows(evaluation, rows)
    (evaluation / "audio/timbre/text_only/piano_1-to-target.wav").unlink()
    (evaluation / "audio/genre/text_only/piano_1-to-target.wav").write_text("<html>")
    build(evaluation, tmp_path / "test")
    out = capsys.readouterr().out
    assert "timbre piano_0-to-target: no edit of adapter" in out
    assert "text_only/piano_1-to-target.wav is missing" in out
    assert "text_only/piano_1-to-target.wav is not audio" in out
    assert "genre: only 1 of the 5 requested sets" in out
    assert {item.source for item in Key.load(tmp_path / "test" / "key.json").items.values()} == {"piano_2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"systems": ["adapter", "nobody"]}, "systems: nobody is not in .*which has no_op, adapter, text_only"),
        ({"systems": ["adapter"]}, "needs at least two, got adapter"),
        ({"sets_per_task": 0}, "sets_per_task: must be 1 or more, got 0"),
        ({"evaluation": Path("nowhere")}, r"nowhere/results.csv is missing"),
    ],
)
def test_mistakes_in_building(evaluation, tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        build(**{"evaluation": evaluation, "out": tmp_path / "test", **arguments})
    assert not (tmp_path / "test").exists()


def test_bad_tables_and_full_folders(evaluation, tmp_path):
    with pytest.raises(InputError, match="exists already and is not an empty folder"):
        build(evaluation, evaluation)
    for content, message in (
        (b"id,task\n1,timbre\n", r"results.csv is .* table of an evaluation .*system"),
        (b"", r"results.csv has no rows"),
        (b"id,task,system,source,prompt,audio,output\n", r"results.csv has no rows"),
        (b"\xff\xfe\x00", r"results.csv is .* table of an evaluation .*UnicodeDecodeError"),
    ):
        (evaluation / "results.csv").write_bytes(content)
        with pytest.raises(InputError, match=message):
            build(evaluation, tmp_path / "test")
    write_evaluation(evaluation)
    shutil.rmtree(evaluation / "audio" / "timbre" / "no_op")
    shutil.rmtree(evaluation / "audio" / "genre" / "no_op")
    with pytest.raises(InputError, match="no set with playable audio of all of adapter, text_only"):
        build(evaluation, tmp_path / "test")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation"]


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.full(800, np.nan), 16000, "NaN"),
        (np.zeros(0), 16000, "no audio"),
        (np.zeros((800, 3)), 16000, "not mono or stereo"),
        (np.zeros(121 * 4_000), 4_000, "not mono or stereo of up to 120 s"),
    ],
)
def test_audio_that_nobody_can_judge(evaluation, tmp_path, capsys, samples, rate, message):
    soundfile.write(evaluation / "audio/timbre/adapter/piano_0-to-target.wav", samples, rate, "FLOAT", format="WAV")
    build(evaluation, tmp_path / "test", sets_per_task=3)
    assert message in capsys.readouterr().out
