"""Sweeps and the paper's findings, on rows whose slopes are known."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from evaluation_rows import GRID, POINT, STRENGTHS, noise, rows_of, swept
from scipy.stats import spearmanr

from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.evaluation.grid import grid_systems
from apa_lightning.evaluation.report.findings import NOT_MEASURED, NOT_SHOWN, OPPOSITE, SHOWN, findings, write_findings
from apa_lightning.evaluation.rows import EvaluationRow, read_rows, write_rows
from apa_lightning.evaluation.summary import family_of
from apa_lightning.evaluation.sweep import (
    Point,
    choose,
    correlations,
    curve,
    operating_point,
    overlay,
    pareto,
    points,
    spearman,
    varied,
    write_operating_point,
    write_operating_points,
)  # fmt: skip
from apa_lightning.utils.bootstrap import Interval

#: As the paper found: omega transfers, alpha keeps, lambda does neither.
TRANSFER, FIDELITY = {"time_pooling": 0.03, "ap_scale": -0.1}, {"time_pooling": -0.05, "ap_scale": 0.2}


def point(name: str, transfer: float, fidelity: float, **knobs) -> Point:
    return Point(name, knobs, Interval(transfer, transfer, transfer), Interval(fidelity, fidelity, fidelity), 10)


POINTS = [point("a", 0.1, 0.9), point("b", 0.3, 0.8), point("c", 0.2, 0.7), point("d", 0.5, 0.5), point("e", 0.5, 0.4)]


def test_the_front_by_hand():
    assert [one.system for one in pareto(POINTS)] == ["a", "b", "d"]
    assert pareto([]) == []
    assert len(pareto([POINTS[0], POINTS[0]])) == 2  # equal points do not beat each other


def test_the_chosen_point_by_hand():
    # transfer from 0.1 to 0.5, fidelity from 0.3 to 0.9: b has shares 1/2 and 5/6, d 1 and 1/3, c 1/4 and 2/3
    chosen = choose(POINTS, 0.1, 0.3)
    assert chosen.system == "b" and f"({2 * 0.5 * (5 / 6) / (0.5 + 5 / 6):.3f})" in chosen.why
    assert "0.100 (no_op)" in chosen.why and "0.300 (text_only)" in chosen.why and "5 combinations" in chosen.why
    assert "0.400 (the least of the points)" in choose(POINTS).why
    assert choose([]) is None
    assert choose(POINTS[:1]).system == "a"  # nothing to choose from


def test_points_and_curves():
    rows = swept(TRANSFER, FIDELITY) + rows_of(
        "sdedit strength=0.5", lambda i: {"clap": 0.1, "chroma": 0.9}, strength=0.5
    )
    found = points(rows, "timbre")
    assert len(found) == sum(map(len, GRID.values()))  # time_pooling 2 is the system's own and counts once
    base = found[0].knobs
    assert [one.knobs["ap_scale"] for one in curve(found, "ap_scale", base)] == [0.2, 0.35, 0.5, 0.65, 0.8]
    assert [one.knobs["time_pooling"] for one in curve(found, "time_pooling", base)] == [1, 2, 4, 8]
    assert curve(found, "num_inference_steps", base) == []
    assert [one.system for one in points(rows, "timbre", family="sdedit")] == ["sdedit strength=0.5"]
    assert points(rows, "genre") == [] == points(rows, "timbre", transfer="recognised")
    with pytest.raises(InputError, match="'lpaps' is not a metric that is better when higher"):
        points(rows, "timbre", fidelity="lpaps")


def test_an_overlay_that_says_how_it_was_chosen(tmp_path):
    rows = swept(TRANSFER, FIDELITY) + rows_of("text_only", lambda i: {"clap": 0.4, "chroma": 0.5})
    (path,) = write_operating_points(tmp_path, rows)
    assert path == tmp_path / "operating_point_timbre.yaml" and "harmonic mean" in path.read_text()
    content = yaml.safe_load(path.read_text())
    chosen = operating_point(rows, "timbre")
    knobs = {name: chosen.knobs[name] for name in POINT if name not in ("freq_pooling", "strength", "seed")}
    assert content == {"data": {"init_args": knobs}}
    assert write_operating_points(tmp_path, rows_of("adapter", lambda i: {"clap": 0.4, "chroma": 0.5})) == []


def test_an_overlay_is_accepted_by_predict(tmp_path):
    from datamodules.edits import EditsDataModule

    path = write_operating_point(tmp_path / "point.yaml", point("by hand", 0.1, 0.2, **POINT, region=None))
    knobs = yaml.safe_load(path.read_text())["data"]["init_args"]
    (tmp_path / "songs").mkdir()
    with pytest.raises((InputError, FileNotFoundError), match="songs"):  # the knobs pass; the folder is empty
        EditsDataModule(folder=str(tmp_path / "songs"), prompt="x", output=str(tmp_path / "out"), **knobs)
    assert set(knobs) >= set(yaml.safe_load(Path("configs/tasks/timbre.yaml").read_text())["data"]["init_args"]) & set(
        POINT
    )


def test_knobs_of_every_form_pass_through_a_table(tmp_path):
    """Null, numbers, mappings and lists: from a grid into results.csv and from there into an overlay."""
    grid = {"ap_scale": [{"up": 0.5}, [0.2]], "text_guidance_scale": [None, 3.0], "audio_guidance_scale": [1.5, 7.5]}
    grid |= {"guidance_interval": [None, [0, 0.5]]}
    base = {**POINT, "text_guidance_scale": None, "audio_guidance_scale": None}
    made = {system.name: system.settings(base) for system in grid_systems(grid, product=True)}
    assert len(made) == 16 and {family_of(name) for name in made} == {"adapter"}
    rows = [
        one for name, knobs in made.items() for one in rows_of(name, lambda i: {"clap": 0.1, "chroma": 0.2}, 2, **knobs)
    ]
    write_rows(tmp_path, rows)
    given = [{name: value for name, value in row.knobs.items() if value is not None} for row in rows]
    read = read_rows(tmp_path)
    assert [row.knobs for row in read] == given
    for one in points(read, "timbre"):
        settings = EditSettings(**overlay(one))
        assert {name: getattr(settings, name) for name in grid} == {name: made[one.system][name] for name in grid}


def test_a_table_from_before_a_knob_is_read(tmp_path):
    write_rows(tmp_path, swept(TRANSFER, FIDELITY))
    with open(tmp_path / "results.csv", encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    with open(tmp_path / "results.csv", "w", newline="") as file:
        columns = [name for name in table[0] if name not in ("text_guidance_scale", "audio_guidance_scale")]
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(table)
    assert [row.knobs for row in read_rows(tmp_path)] == [row.knobs for row in swept(TRANSFER, FIDELITY)]


def test_curves_of_the_two_guidance_scales():
    rows = swept(TRANSFER, FIDELITY)
    for name in ("text_guidance_scale", "audio_guidance_scale"):
        for value in (1.5, 3.0):
            system = f"adapter {name}={value}"
            rows += rows_of(system, lambda i, v=value: {"clap": v, "chroma": -v}, **{name: value})
        assert [one.knobs[name] for one in curve(points(rows, "timbre"), name, points(rows, "timbre")[0].knobs)] == [
            1.5,
            3.0,
        ]
        found = {of.metric: of.interval.mean for of in correlations(rows, "timbre") if of.knob == name}
        assert found["clap"] == pytest.approx(1) and found["chroma"] == pytest.approx(-1)


def test_spearman_is_scipys_also_in_resampled_sources():
    generator = np.random.default_rng(0)
    x = generator.integers(4, size=60).astype(float)  # ties
    y = np.round(x + generator.normal(size=60), 1)
    sources = [f"s{i // 6}" for i in range(60)]
    found = spearman(x, y, sources, seed=4)
    assert found.mean == pytest.approx(spearmanr(x, y).statistic)
    numbers = np.arange(60) // 6
    drawn = np.random.default_rng(4).integers(10, size=(2000, 10))[:300]
    by_hand = []
    for draw in drawn:
        edits = np.concatenate([np.flatnonzero(numbers == source) for source in sorted(draw)])
        by_hand.append(spearmanr(x[edits], y[edits]).statistic)
    assert np.percentile(by_hand, [2.5, 97.5]) == pytest.approx(found[1:], abs=0.05)
    assert found.low < found.mean < found.high


def test_correlations_of_knobs_with_figures():
    found = {(of.knob, of.metric): of for of in correlations(swept(TRANSFER, FIDELITY), "timbre")}
    assert found["ap_scale", "chroma"].interval.low > 0.5 and found["ap_scale", "clap"].interval.high < 0
    assert ("ap_scale", "chroma_floor") not in found and ("num_inference_steps", "clap") not in found
    assert found["time_pooling", "clap"].edits == 4 * 20
    assert not correlations(swept({}, {}, count=1)[:1], "timbre")


def test_a_grid_without_the_system_itself_is_taken_whole():
    rows = [
        row
        for alpha in (0.2, 0.8)
        for omega in (1, 4)
        for row in rows_of(f"adapter ap_scale={alpha} time_pooling={omega}", lambda i, a=alpha: {"clap": a, "chroma": 1 - a},
                           4, ap_scale=alpha, time_pooling=omega)
    ]  # fmt: skip
    assert len(varied(rows, "timbre", "ap_scale")) == 8  # one per edit and value
    assert len(points(rows, "timbre")) == 4 and operating_point(rows, "timbre") is not None


def verdicts(rows: list[EvaluationRow]) -> dict[str, str]:
    return {finding.letter: finding.verdict for finding in findings(rows)}


def systems(clap: float = 0.3, chroma: float = 0.7, sdedit: float = 0.6, negative: float = 0.05) -> list[EvaluationRow]:
    """The other systems beside the adapter of ``swept``; SDEdit passes the adapter's transfer at strength 0.9 only."""

    def figures(moved: float, kept: float):
        return lambda i: {"clap": moved + noise(i), "chroma": kept + noise(i + 1), "melody": kept - 0.2 + noise(i + 2)}

    rows = rows_of("no_negative", figures(clap - negative, chroma)) + rows_of("text_only", figures(0.4, sdedit - 0.2))
    for strength in STRENGTHS:
        rows += rows_of(
            f"sdedit strength={strength}", figures(0.35 * strength, sdedit + 0.9 - strength), strength=strength
        )
    return rows


def test_all_findings_are_shown_where_they_hold(tmp_path):
    rows = swept(TRANSFER, FIDELITY) + systems()
    assert verdicts(rows) == dict.fromkeys("abcdef", SHOWN)
    found = {finding.letter: finding for finding in findings(rows)}
    change = found["a"].evidence[0].mean
    assert (
        change.interval == pytest.approx((0.09, 0.09, 0.09)) and change.sources == 10
    )  # 0.03 for each doubling, 1 to 8
    assert found["b"].evidence[1].mean.interval.mean == pytest.approx(0.2 * 0.6)
    assert "SDEdit 0.9" in found["e"].evidence[0].what and "0.5, 0.7, 0.9" in found["e"].remark
    text = write_findings(tmp_path, rows)
    assert text.count("SHOWN") == 6 and (tmp_path / "findings.md").read_text().count("**shown**") == 6


def test_what_is_flat_or_reversed_is_not_shown():
    flat = verdicts(swept({}, {}) + systems(negative=0.0, sdedit=0.7 - 1e-12))
    assert flat == {"a": NOT_SHOWN, "b": NOT_SHOWN, "c": SHOWN, "d": NOT_SHOWN, "e": NOT_SHOWN, "f": SHOWN}
    back = {knob: -slope for knob, slope in TRANSFER.items()}, {knob: -slope for knob, slope in FIDELITY.items()}
    turned = verdicts(swept(back[0] | {"guidance_scale": 0.02}, back[1]) + systems(sdedit=1.0, negative=-0.05))
    assert turned == dict.fromkeys("abcdef", OPPOSITE)


def test_half_a_finding_is_not_shown_and_a_half_measured_one_not_measured():
    half = verdicts(swept(TRANSFER, {}))
    assert half["a"] == half["b"] == NOT_SHOWN
    rows = [replace(row, scores={**row.scores, "clap": math.nan}) for row in swept(TRANSFER, FIDELITY)]
    assert verdicts(rows) == dict.fromkeys("abcdef", NOT_MEASURED)
    assert verdicts([]) == dict.fromkeys("abcdef", NOT_MEASURED)


def test_one_source_shows_nothing():
    rows = swept(TRANSFER, FIDELITY) + systems()
    only = rows[0].source
    assert verdicts([row for row in rows if row.source == only]) == dict.fromkeys("abcdef", NOT_MEASURED)


def test_equivalence_needs_narrow_intervals():
    rows = swept({"guidance_scale": 0.003}, {})  # 0.012 at 7.5 is within the margin of 0.015, 0.0195 at 10 is not
    assert verdicts(rows)["c"] == OPPOSITE
    for row in rows:
        if row.knobs["guidance_scale"] == 10:
            row.scores["clap"] += 0.2 * math.sin(3.1 * float(row.source[7:]))  # now nobody knows
    assert verdicts(rows)["c"] == NOT_SHOWN


def test_recognition_is_the_transfer_where_it_was_measured():
    rows = swept(TRANSFER, FIDELITY) + systems()
    for row in rows:
        row.scores["recognised"] = 0.8
    rows += rows_of("adapter", lambda i: {"clap": 0.1, "chroma": 0.7}, task="genre")
    found = {finding.letter: finding for finding in findings(rows)}
    assert found["a"].evidence[0].what.startswith("change of target recognized") and found["a"].verdict == NOT_SHOWN
    assert "SDEdit 0.5" in found["e"].evidence[0].what  # recognised as often at the least strength


def test_sdedit_that_never_transfers_as_much_cannot_be_better():
    rows = swept({}, {}) + [row for row in systems(sdedit=1.2) if row.knobs["strength"] < 0.8]
    found = {finding.letter: finding for finding in findings(rows)}["e"]
    assert found.verdict == NOT_SHOWN and "no strength reaches the adapter" in found.remark
