"""The benchmarks run: the quickest program on both sides in its smallest size, and the table's arithmetic. No time is asserted."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def benchmarks(monkeypatch):
    """The programs as ``python benchmarks/run.py`` imports them."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    yield names
    for name in names:
        sys.modules.pop(name, None)


def test_a_program_is_timed_on_both_sides_and_written(benchmarks, tmp_path):
    import run

    (result,) = run.main(["--tiny", "startup", "--out", str(tmp_path), "--today", str(ROOT)])
    assert {side: len(runs) for side, runs in result.runs.items()} == {"ours": 1, "today": 1}
    assert all(one["seconds"] > 0 and one["cpu"] > 0 for runs in result.runs.values() for one in runs)
    (written,) = json.loads((tmp_path / "results.json").read_text())["results"]
    assert (written["question"], written["at_most"]) == ("apa_lightning --help", True)
    assert (tmp_path / "results.png").stat().st_size > 1000
    assert (tmp_path / "results.md").read_text().count("\n") == 3


@pytest.mark.slow
def test_both_loaders_read_every_clip(benchmarks, tmp_path):
    import run

    (result,) = run.main(["--tiny", "loader", "--out", str(tmp_path), "--today", str(ROOT)])
    assert result.facts["lost"] == 0
    assert {side: [one["clips"] for one in runs] for side, runs in result.runs.items()} == {
        "ours": [4],
        "webdataset": [4],
    }


@pytest.mark.slow
def test_the_bare_loop_goes_on_in_the_next_epoch(benchmarks):
    from timing import Side

    settings = {"steps": 3, "batch_size": 80, "workers": 0}  # of 160 clips
    with Side("bare", "peers/bare_loop.py", settings=settings).start() as running:
        assert running.run()["step"] > 0


def test_ratios_are_taken_pair_by_pair(benchmarks):
    import report
    import timing

    runs = {
        "ours": [{"seconds": 1.0}, {"seconds": 10.0}, {"seconds": 2.0}],
        "other": [{"seconds": 2.0}, {"seconds": 40.0}, {"seconds": 2.0}],
    }
    faster = timing.compare("question", "unit", 2, "ours", "other", runs)
    assert (faster.low, faster.ratio, faster.high, faster.reached) == (1, 2, 4, True)
    share = timing.compare("question", "unit", 0.4, "ours", "other", runs, at_most=True)
    assert (share.low, share.ratio, share.high, share.reached) == (0.25, 0.5, 1, False)
    yes, no = report.table([faster, share]).splitlines()[2:]
    assert ">= 2x" in yes and "| 2x" in yes and "| yes" in yes
    assert "<= 0.4x" in no and "0.25 to 1 " in no and "**no**" in no


def test_an_unknown_question_is_refused_in_words(benchmarks, capsys):
    import run

    with pytest.raises(SystemExit) as end:
        run.main(["speed"])
    assert end.value.code == 2
    assert "speed: is not a question; give some of startup" in capsys.readouterr().err
