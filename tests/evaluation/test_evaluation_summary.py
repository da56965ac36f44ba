"""Means, paired differences and tables of an evaluation, on rows with known figures."""

import math

import numpy as np
import pytest
from evaluation_rows import noise, rows_of

from apa_lightning.evaluation.report.page import write_report
from apa_lightning.evaluation.report.tables import Scores, as_markdown, number, tables, write_tables
from apa_lightning.evaluation.summary import (
    MEAN_OF_TASKS,
    Value,
    average,
    compared,
    differences,
    family_of,
    means,
    paired,
)
from apa_lightning.utils.bootstrap import bootstrap_by_source

ABOUT = {"clap": "small CLAP", "embedding": "VGGish", "set": "solos", "sources": 10, "seed": 3,
         "skipped_metrics": {"lpaps": "librosa is missing"}}  # fmt: skip


def fad(system: str, value: float | None, task: str = "timbre", why: str = "") -> dict:
    return {"task": task, "system": system, "metric": "fad", "value": value, "low": None, "high": None, "why": why}


def test_an_average_of_one_task_is_bootstrap_by_source():
    values = [Value("timbre", f"s{i // 3}", math.sin(i)) for i in range(30)]
    found = average([*values, Value("timbre", "s99", math.nan)], seed=5)
    assert found.interval == pytest.approx(
        bootstrap_by_source([value.value for value in values], [value.source for value in values], 5)
    )
    assert (found.edits, found.sources) == (30, 10)


def test_constant_figures_have_no_spread_and_none_have_no_mean():
    assert average([Value("a", f"s{i}", 0.7) for i in range(9)]).interval == pytest.approx((0.7, 0.7, 0.7))
    nothing = average([Value("a", "s", math.nan)])
    assert nothing.edits == 0 and math.isnan(nothing.interval.mean)


def test_the_mean_of_tasks_weighs_tasks_equally():
    values = [Value("a", f"s{i}", 1.0) for i in range(30)] + [Value("b", f"s{i}", 0.0) for i in range(3)]
    found = average(values)
    assert found.interval.mean == pytest.approx(0.5)
    assert found.interval.low <= 0.5 <= found.interval.high


def test_paired_differences_cancel_what_edits_share():
    rows = rows_of("adapter", lambda i: {"clap": 0.3 + noise(i)}) + rows_of(
        "sdedit", lambda i: {"clap": 0.2 + noise(i)}
    )
    found = differences(rows, "adapter")
    assert found["timbre", "sdedit", "clap"].interval == pytest.approx((-0.1, -0.1, -0.1))
    assert {key[1] for key in found} == {"sdedit"}
    half = rows[:20] + rows[20:30]  # sdedit failed on half of the edits
    assert len(paired(half, "sdedit", "adapter", "clap")) == 10


def test_what_one_task_lacks_has_no_mean_of_tasks():
    rows = rows_of("adapter", lambda i: {"clap": 0.3, "recognised": 1.0})
    rows += rows_of("adapter", lambda i: {"clap": 0.5}, task="genre")
    found = means(rows)
    assert found[MEAN_OF_TASKS, "adapter", "clap"].interval.mean == pytest.approx(0.4)
    assert (MEAN_OF_TASKS, "adapter", "recognised") not in found
    assert ("genre", "adapter", "recognised") not in found


def test_points_of_sweeps_are_no_systems_of_tables():
    assert family_of("adapter ap_scale=0.2 time_pooling=4") == "adapter"
    assert family_of("my system") == "my system"
    rows = rows_of("adapter", lambda i: {}) + rows_of("adapter ap_scale=0.2", lambda i: {})
    assert {row.system for row in compared(rows)} == {"adapter"}


def test_the_same_seed_gives_the_same_interval():
    rows = rows_of("adapter", lambda i: {"clap": noise(i)})
    assert means(rows, 1) == means(rows, 1) != means(rows, 2)


def example() -> list:
    rows = []
    for task in ("timbre", "genre"):
        rows += rows_of(
            "adapter", lambda i: {"clap": 0.3, "chroma": 0.8, "chroma_floor": 0.48, "loudness": 0.9}, task=task
        )
        rows += rows_of(
            "sdedit", lambda i: {"clap": 0.4, "chroma": 0.6, "chroma_floor": 0.48, "loudness": 0.8}, task=task
        )
        rows += rows_of("no_op", lambda i: {"clap": 0.1, "chroma": 1.0, "chroma_floor": 0.48}, task=task)
    return rows


def test_the_best_is_bold_and_doing_nothing_does_not_compete():
    scores = Scores(example(), [fad("adapter", 5.0), fad("sdedit", 6.0), fad("no_op", 0.0)])
    assert scores.cell("timbre", "adapter", "chroma").best and not scores.cell("timbre", "no_op", "chroma").best
    assert scores.cell("timbre", "sdedit", "clap").best and not scores.cell("timbre", "adapter", "clap").best
    assert scores.cell("timbre", "adapter", "fad").best  # less is better
    assert scores.cell("timbre", "adapter", "chroma").floor == "floor 0.480"
    assert scores.cell(MEAN_OF_TASKS, "adapter", "fad").text == "–"  # genre has none


def test_table_1_says_what_was_used_and_why_there_is_no_number(tmp_path):
    write_tables(tmp_path, example(), [fad("adapter", 5.5), fad("sdedit", None, why="fewer than 2 edits")], ABOUT)
    text = (tmp_path / "table1.md").read_text()
    head, _, row = [line for line in text.splitlines() if line.startswith("|")][:3]
    assert head.count("CLAP") == 3 and "mean of tasks chroma" in head and head.count("|") == row.count("|")
    assert row.startswith("| adapter | 0.300 [0.300, 0.300] | **0.800** [0.800, 0.800] floor 0.480 | 5.500 |")
    for words in (
        "small CLAP",
        "VGGish",
        "solos",
        "Skipped: lpaps: librosa is missing",
        "fewer than 2 edits (timbre sdedit)",
    ):
        assert words in text
    assert "Not measured: " in text and "onset F1" in text and "nan" not in text


def test_no_rows_are_said_in_words(tmp_path):
    write_tables(tmp_path, [], [], {})
    assert "No edits have been measured." in (tmp_path / "table1.md").read_text()


def test_text_cannot_break_out_of_a_table(tmp_path):
    rows = rows_of("a|b<script>", lambda i: {"clap": 0.3}) + rows_of("x", lambda i: {"clap": 0.1})
    about = {"set": "<img>"}
    first = tables(rows, [], about)[0]
    assert "a\\|b&lt;script>" in as_markdown(first) and "<img" not in as_markdown(first)
    html = write_report(tmp_path, rows, [], about).read_text()
    assert "<th>a|b&lt;script&gt;</th>" in html and "<img" not in html


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (-0.5, "-0.500"), (99.5, "99.500"), (12345.6, "1.235e+04")]
)
def test_numbers(value, text):
    assert number(value) == text
    assert np.isclose(float(number(value)), value, rtol=5e-3)
