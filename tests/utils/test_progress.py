"""Progress where standard error is not a terminal: a line every half minute; on a terminal tqdm's bar."""

import sys

import pytest
import tqdm.std

from apa_lightning.utils.progress import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set: ``clock[0] += 5``."""
    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    return now


def test_a_line_every_half_minute_with_done_total_and_time_left(clock, capsys):
    with progress(100, "encoding", "clip", initial=10) as bar:
        for _ in range(90):
            clock[0] += 1
            bar.update()
    assert capsys.readouterr().err.splitlines() == [
        "encoding: 40 of 100 clips, 00:30 elapsed, 01:00 left",
        "encoding: 70 of 100 clips, 01:00 elapsed, 00:30 left",
        "encoding: 100 of 100 clips, 01:30 elapsed, 00:00 left",
    ]


def test_slow_units_get_a_line_each_and_the_last_count_is_told(clock, capsys):
    for seconds in progress([40, 100, 5], "edits", "edit"):
        clock[0] += seconds
    assert capsys.readouterr().err.splitlines() == [
        "edits: 1 of 3 edits, 00:40 elapsed, 01:20 left",
        "edits: 2 of 3 edits, 02:20 elapsed, 01:10 left",
        "edits: 3 of 3 edits, 02:25 elapsed, 00:00 left",
    ]


def test_a_generator_has_no_total(clock, capsys):
    for _ in progress(iter([1, 2]), "validation", "batch"):
        clock[0] += 31
    assert capsys.readouterr().err.splitlines() == [
        "validation: 1 of ? batches, 00:31 elapsed",
        "validation: 2 of ? batches, 01:02 elapsed",
    ]


def test_short_or_hidden_work_prints_nothing(clock, capsys):
    for _ in progress(range(20), "clips", "clip"):
        clock[0] += 1
    for _ in progress(range(20), "clips", "clip", shown=False):
        clock[0] += 100
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_the_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for _ in progress(range(3), "clips", "clip"):
        pass
    assert "100%" in capsys.readouterr().err
