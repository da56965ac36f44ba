"""Scoring a listening test: who counts, intervals, the table, files that cannot be used."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from listening_tools import (
    NAMES,
    answer,
)

from apa_lightning.cli.main import main
from apa_lightning.errors import InputError
from apa_lightning.listening_test.answers import Answers, newest
from apa_lightning.listening_test.attention import RULE, why_rejected
from apa_lightning.listening_test.key import HIDDEN_SOURCE, Item, Key
from apa_lightning.listening_test.score import crossed_bootstrap, score, table


def test_the_rule():
    assert RULE.removeprefix("A listener") in " ".join(str(score.__doc__).split())
    first = Item("timbre", "a", "piano_0", "adapter")
    items = {"edit": first, "again": first._replace(control="repeat")}
    items |= {f"source{i}": Item("timbre", str(i), "s", HIDDEN_SOURCE, "source") for i in range(5)}
    same = {"transferability": 3, "fidelity": 3, "preference": 3}
    good = {f"source{i}": {"fidelity": 5} for i in range(5)} | {"edit": same, "again": same}
    assert why_rejected(good, items) == ""
    assert why_rejected(good | {"source0": {"fidelity": 1}}, items) == ""  # one lapse in five
    assert "in 2 of 5 sets" in why_rejected(good | {f"source{i}": {"fidelity": 3} for i in range(2)}, items)
    assert why_rejected(good | {"again": {name: 4 for name in NAMES}}, items) == ""
    assert "two appearances of an edit 1.3 points apart" in why_rejected(
        good | {"again": same | {"fidelity": 5, "preference": 1}} | {"edit": same}, items
    )
    assert "the same number" in why_rejected({token: {name: 4 for name in NAMES} for token in items}, items)
    assert "any hidden copy" in why_rejected({"edit": same}, items)
    assert why_rejected({"source0": {"fidelity": 5}, "again": same}, items) == ""  # the first appearance is not rated


def test_intervals_are_over_listeners_and_recordings():
    alike = [(f"l{i}", f"s{j}", 4) for i in range(4) for j in range(5)]
    assert crossed_bootstrap(alike) == (4, 4, 4)
    of_listeners = [(f"l{i}", f"s{j}", 1 + 2 * (i % 2)) for i in range(8) for j in range(50)]
    of_sources = [(f"l{i}", f"s{j}", 1 + 2 * (j % 2)) for i in range(50) for j in range(8)]
    for given in (of_listeners, of_sources):  # only eight independent values, however many ratings
        mean, low, high = crossed_bootstrap(given)
        assert mean == 2
        assert high - low == pytest.approx(2 * 1.96 / 8**0.5, abs=0.2)
    assert np.isnan(crossed_bootstrap([]).mean)


def test_table_2(test, capsys):
    for listener in ("anna", "bert"):
        answer(test, listener)
    answer(test, "clicker", lambda item, name: 4)
    answer(test, "deaf", lambda item, name: 2 if item.system == HIDDEN_SOURCE else None)
    answer(test, "anna", lambda item, name: 1, name="-older", saved="2025-01-01T00:00:00.000Z")
    unfinished = json.loads(answer(test, "zoe").read_text())
    hidden = next(token for token, item in Key.load(test / "key.json").items.items() if item.control == "source")
    answer(test, "zoe", ratings={hidden: unfinished["ratings"][hidden]})
    score(test / "answers", out=test)
    out = capsys.readouterr().out
    assert "| task | system | transferability | fidelity | overall preference | ratings each |" in out
    assert "| timbre | adapter | 4.00 [4.00, 4.00] | 4.00 [4.00, 4.00] | 4.00 [4.00, 4.00] | 4 |" in out
    assert "| all | text_only | 5.00 [5.00, 5.00] | 1.00 [1.00, 1.00] | 2.00 [2.00, 2.00] | 8 |" in out
    assert "3 counted, 2 rejected; 6 files, 1 superseded" in out
    assert "Unfinished tests among those counted: 1; the ratings that they contain count" in out
    assert "Rejected: clicker (clicker.json): gave the same number everywhere." in out
    assert "Rejected: deaf (deaf.json): rated the fidelity of the hidden copy of the source below 4 in 4 of 4" in out
    assert RULE in out
    assert (test / "table2.md").read_text() in out
    with open(test / "table2.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * 3 * 3
    cell = next(row for row in rows if row["task"] == "all" and row["system"] == HIDDEN_SOURCE)
    assert (cell["question"], float(cell["mos"]), cell["ratings"], cell["listeners"]) == (
        "transferability",
        1,
        "9",
        "3",
    )
    score(test / "answers", keep_all=True)
    out = capsys.readouterr().out
    assert "5 counted, 0 rejected" in out
    assert "Would be rejected, kept by --keep_all: deaf" in out


def test_repeats_do_not_count_twice(test):
    key = Key.load(test / "key.json")
    again = {token: {"fidelity": 1} for token, item in key.items.items() if item.control == "repeat"}
    assert all(row.ratings == 0 for row in table([Answers(Path("a"), "a", "", again)], key))


def test_the_newest_file_of_a_listener_counts():
    files = [Answers(Path(str(day)), "anna", f"2026-01-{day:02}T00:00:00.000Z", {}) for day in (3, 11, 7)]
    assert [one.file.name for one in newest(files)] == ["11"]


def test_files_that_cannot_be_used_are_named(test, capsys):
    whole = answer(test, "anna").read_text()
    token = next(iter(Key.load(test / "key.json").items))
    bad = {
        "cut.json": (whole[:100], "is not JSON"),
        "list.json": ("[]", "is not an answers file"),
        "deep.json": ("[" * 100_000, "is not JSON"),
        "bytes.json": (b"\xff\x00", "is not JSON"),
        "other.json": (json.dumps(json.loads(whole) | {"build": "x"}), "belongs to test 'x'"),
        "unknown.json": (json.dumps(json.loads(whole) | {"ratings": {"x": {}}}), "rates 'x'"),
        "six.json": (json.dumps(json.loads(whole) | {"ratings": {token: {"fidelity": 6}}}), "other than 1 to 5"),
        "true.json": (json.dumps(json.loads(whole) | {"ratings": {token: {"fidelity": True}}}), "other than 1 to 5"),
        "words.json": (json.dumps(json.loads(whole) | {"ratings": {token: 3}}), "other than 1 to 5"),
        "none.json": (json.dumps(json.loads(whole) | {"ratings": None}), "has no ratings"),
    }
    for name, (content, _) in bad.items():
        (test / "answers" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    score(test / "answers")
    out = capsys.readouterr().out
    for name, (_, message) in bad.items():
        assert any(name in line and message in line for line in out.splitlines()), name
    assert "There is only one listener" in out
    (test / "answers" / "anna.json").unlink()
    with pytest.raises(InputError, match=r"no file can be used:(\n.*){10}"):
        score(test / "answers")


def test_mistakes_in_scoring(test, tmp_path, capsys):
    answers = test / "answers"
    with pytest.raises(InputError, match=r"no \*.json in"):
        score(answers)
    for arguments, message in (
        (["--answers", "nowhere"], "nowhere does not exist"),
        (["--answers", str(answer(test, "deaf", lambda item, name: 1))], "every listener is rejected; give --keep_all"),
        (["--answers", str(answers), "--key", "nowhere.json"], "key: nowhere.json is missing"),
        (["--answers", str(answers), "--key", str(answers / "deaf.json")], "is not a key.json"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["listening-test", "score", *arguments])
        error = capsys.readouterr().err
        assert end.value.code == 2
        assert message in error
        assert "Traceback" not in error
    shutil.copy(answers / "deaf.json", tmp_path / "deaf.json")
    with pytest.raises(InputError, match=r"there is no key.json next to .*deaf.json"):
        score(tmp_path / "deaf.json")
