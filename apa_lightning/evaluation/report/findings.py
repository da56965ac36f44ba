"""The six findings of the paper (Sec. 5, Table 1 and Fig. 2) as verdicts from the rows of an evaluation.

Transfer is the share of edits whose target is recognized, where that was measured, else CLAP; fidelity is chroma similarity and
melody accuracy. All differences are taken on the same edits; intervals are 95 % over resampled sources.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from apa_lightning.evaluation.rows import EvaluationRow, tasks_of, title_of
from apa_lightning.evaluation.summary import Mean, Value, average, family_of, paired, systems_of, values_of
from apa_lightning.evaluation.sweep import varied
from apa_lightning.utils.atomic_files import write_file

#: Sources below which an interval over resampled sources means nothing.
FEWEST = 2
SHOWN, NOT_SHOWN, OPPOSITE, NOT_MEASURED = "shown", "not shown", "the opposite is shown", "not measured"
FIDELITY = ("chroma", "melody")
#: What counts as no difference, or as well above: less than half of what lies between the adapter and SDEdit in the
#: paper's Table 1 (CLAP 0.03, chroma 0.13); of the share recognized and of melody accuracy, a tenth.
MARGINS = {"clap": 0.015, "recognised": 0.1, "chroma": 0.05, "melody": 0.1}
FLAT_FROM = 3.5
FILE = "findings.md"


@dataclass(frozen=True)
class Evidence:
    """What a verdict rests on: in words, its mean, what it says by itself, and the name of the metric."""

    what: str
    mean: Mean
    says: str
    metric: str


@dataclass(frozen=True)
class Finding:
    """One finding: the statement, the rule of its verdict, the evidence, and the verdict.

    ``remark`` says what was compared, or why nothing was.
    """

    letter: str
    statement: str
    rule: str
    verdict: str
    evidence: tuple[Evidence, ...] = ()
    remark: str = ""


def findings(rows: Sequence[EvaluationRow], seed: int = 0) -> list[Finding]:
    """The six findings, in order; ``seed`` is of the intervals."""
    transfer = "clap"
    judged = [row for row in rows if np.isfinite(row.score("recognised"))]
    every = rows
    if judged:
        transfer = "recognised"
        rows = [row for row in rows if row.task in tasks_of(judged)]
    return [
        _along(rows, "a", "A larger omega (time_pooling) gives more transfer and less fidelity.", "time_pooling", 1,
               transfer, seed),
        _along(rows, "b", "A larger alpha (ap_scale) gives more fidelity and less transfer.", "ap_scale", -1,
               transfer, seed),
        _flat(rows, transfer, seed),
        _negative(rows, transfer, seed),
        _beside_sdedit(rows, transfer, seed),
        _above_text(every, seed),
    ]  # fmt: skip


def _along(
    rows: Sequence[EvaluationRow], letter: str, statement: str, knob: str, sign: int, transfer: str, seed: int
) -> Finding:  # fmt: skip
    rule = (
        f"For each edit a straight line through its scores over {'log2 of ' if knob == 'time_pooling' else ''}{knob}, "
        "times the range of the knob. Shown: the intervals of transfer and of each fidelity metric lie on the stated "
        "side of 0. The opposite: all lie on the other side."
    )
    along = [row for task in tasks_of(rows) for row in varied(rows, task, knob)]
    if not along:
        return Finding(letter, statement, rule, NOT_MEASURED, remark=f"No sweep of {knob} of the adapter.")
    values = sorted({row.knobs[knob] for row in along})
    evidence = [
        _evidence(
            f"change of {title_of(rows, metric)} from {knob} {values[0]:g} to {values[-1]:g}",
            average(_changes(along, knob, metric), seed),
            metric,
            direction,
        )
        for metric, direction in ((transfer, sign), *((name, -sign) for name in FIDELITY))
    ]
    return _both_sides(letter, statement, rule, evidence, f"Values: {', '.join(f'{value:g}' for value in values)}.")


def _changes(rows: Sequence[EvaluationRow], knob: str, metric: str) -> list[Value]:
    """Each edit's least-squares slope over the knob, times the range of the knob in its task."""
    lines: dict[tuple[str, str], list[tuple[float, float]]] = {}
    sources, spans = {}, {}
    scale = np.log2 if knob == "time_pooling" else float
    for row in rows:
        if np.isfinite(row.score(metric)):
            lines.setdefault((row.task, row.id), []).append((float(scale(row.knobs[knob])), row.score(metric)))
            sources[row.task, row.id] = row.source
    for task in {task for task, _ in lines}:
        spans[task] = np.ptp([x for (of, _), line in lines.items() if of == task for x, _ in line])
    found = []
    for key, line in lines.items():
        x, y = np.array(line).T
        if np.ptp(x) > 0:
            slope = np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2)
            found.append(Value(key[0], sources[key], float(slope * spans[key[0]])))
    return found


def _flat(rows: Sequence[EvaluationRow], transfer: str, seed: int) -> Finding:
    margins = ", ".join(f"{title_of(rows, name)} {MARGINS[name]:g}" for name in (transfer, *FIDELITY))
    statement = f"From lambda (guidance_scale) {FLAT_FROM:g} on, more guidance changes little."
    rule = (
        f"Each value above {FLAT_FROM:g} less {FLAT_FROM:g} itself. Shown: every interval lies within the margin of "
        f"equivalence ({margins}, either way). The opposite: an interval lies wholly outside its margin."
    )
    along = [row for task in tasks_of(rows) for row in varied(rows, task, "guidance_scale")]
    first = _at(along, FLAT_FROM)
    larger = sorted({row.knobs["guidance_scale"] for row in along if row.knobs["guidance_scale"] > FLAT_FROM})
    if not first or not larger:
        why = f"No adapter at guidance_scale {FLAT_FROM:g} next to larger values."
        return Finding("c", statement, rule, NOT_MEASURED, remark=why)
    evidence = []
    for metric in (transfer, *FIDELITY):
        for value in larger:
            mean = average(paired([*first, *_at(along, value)], f"{value:g}", f"{FLAT_FROM:g}", metric), seed)
            low, high, margin = mean.interval.low, mean.interval.high, MARGINS[metric]
            says = SHOWN if -margin < low and high < margin else OPPOSITE if low > margin or high < -margin else ""
            says = (says or NOT_SHOWN) if mean.sources >= FEWEST else NOT_MEASURED
            evidence.append(
                Evidence(f"{title_of(rows, metric)} at {value:g} less at {FLAT_FROM:g}", mean, says, metric)
            )
    if any(part.says == OPPOSITE for part in evidence):
        return Finding("c", statement, rule, OPPOSITE, tuple(evidence))
    return _both_sides("c", statement, rule, evidence)


def _at(rows: Sequence[EvaluationRow], value: float) -> list[EvaluationRow]:
    """The rows at one guidance scale, as a system of that name."""
    return [
        replace(row, about={**row.about, "system": f"{value:g}"})
        for row in rows
        if row.knobs["guidance_scale"] == value
    ]


def _negative(rows: Sequence[EvaluationRow], transfer: str, seed: int) -> Finding:
    statement = "The negative prompt helps timbre transfer."
    rule = "Shown: with less without it, the interval of transfer lies above 0. The opposite: below 0."
    rows = [row for row in rows if row.task == "timbre"]
    mean = average(paired(rows, "adapter", "no_negative", transfer), seed)
    what = f"{title_of(rows, transfer)}: adapter less no_negative, task timbre"
    remark = "" if mean.edits else "The task timbre lacks the system adapter or no_negative."
    return _verdict("d", statement, rule, [_evidence(what, mean, transfer, 1)], remark)


def _beside_sdedit(rows: Sequence[EvaluationRow], transfer: str, seed: int) -> Finding:
    statement = "The adapter trades transfer against fidelity better than SDEdit."
    rule = (
        "SDEdit at the least strength whose mean transfer is not lower than the adapter's (chosen on the same edits; the "
        "intervals do not count that choice). Shown: the adapter's fidelity is higher, each interval above 0. The "
        "opposite: each below 0. If no strength transfers as much, SDEdit at the one that transfers most: it is then "
        "shown if fidelity is higher too, and its opposite cannot be."
    )
    strengths: dict[str, Any] = {
        row.system: row.knobs["strength"]
        for row in rows
        if family_of(row.system) == "sdedit" and "strength" in row.knobs
    }
    leads = {}
    for system in sorted(strengths, key=lambda name: strengths[name]):
        lead = average(paired(rows, system, "adapter", transfer), seed)
        if lead.edits:
            leads[system] = lead
    if not leads:
        why = f"No SDEdit next to the adapter with {title_of(rows, transfer)} measured."
        return Finding("e", statement, rule, NOT_MEASURED, remark=why)
    chosen = next((name for name, lead in leads.items() if lead.interval.mean >= 0), None)
    other = chosen or max(leads, key=lambda name: leads[name].interval.mean)
    evidence = [
        _evidence(f"{title_of(rows, metric)}: adapter less SDEdit {strengths[other]:g}",
                  average(paired(rows, "adapter", other, metric), seed), metric, 1)
        for metric in FIDELITY
    ]  # fmt: skip
    ours, theirs = (average(values_of(rows, name, transfer), seed).interval.mean for name in ("adapter", other))
    remark = (
        f"Strengths tried: {', '.join(f'{strengths[name]:g}' for name in leads)}. "
        f"{title_of(rows, transfer)}: adapter {ours:.3f}, SDEdit {strengths[other]:g} {theirs:.3f}"
        + ("." if chosen else "; no strength reaches the adapter.")
    )
    finding = _verdict("e", statement, rule, evidence, remark)
    if finding.verdict == OPPOSITE and chosen is None:
        return Finding("e", statement, rule, NOT_SHOWN, finding.evidence, remark)
    return finding


def _above_text(rows: Sequence[EvaluationRow], seed: int) -> Finding:
    statement = "The adapter's fidelity is well above that of text alone."
    margins = ", ".join(f"{title_of(rows, name)} {MARGINS[name]:g}" for name in FIDELITY)
    rule = f"Shown: adapter less text_only, each interval lies above a margin ({margins}). The opposite: below 0."
    evidence = [
        _evidence(f"{title_of(rows, metric)}: adapter less text_only", average(paired(rows, "adapter", "text_only", metric), seed),
                  metric, 1, MARGINS[metric])
        for metric in FIDELITY
    ]  # fmt: skip
    remark = "" if "text_only" in systems_of(rows) else "No system text_only."
    return _verdict("f", statement, rule, evidence, remark)


def _evidence(what: str, mean: Mean, metric: str, sign: int, margin: float = 0.0) -> Evidence:
    """What an interval says of "more than ``margin``" (``sign`` 1) or "less than -``margin``" (-1)."""
    low, high = sorted(round(sign * bound, 9) for bound in mean.interval[1:])  # rounding errors are no findings
    says = SHOWN if low > margin else OPPOSITE if high < 0 else NOT_SHOWN
    return Evidence(what, mean, says if mean.sources >= FEWEST else NOT_MEASURED, metric)


def _verdict(letter: str, statement: str, rule: str, evidence: Sequence[Evidence], remark: str = "") -> Finding:
    """All that was measured must agree."""
    said = {part.says for part in evidence} - {NOT_MEASURED}
    verdict = said.pop() if len(said) == 1 else NOT_SHOWN if said else NOT_MEASURED
    return Finding(letter, statement, rule, verdict, tuple(evidence), remark)


def _both_sides(letter: str, statement: str, rule: str, evidence: Sequence[Evidence], remark: str = "") -> Finding:
    """:func:`_verdict`, of a statement that needs transfer and a metric of fidelity."""
    sides = {part.metric in FIDELITY for part in evidence if part.says != NOT_MEASURED}
    if len(sides) < 2:
        return Finding(letter, statement, rule, NOT_MEASURED, tuple(evidence), "Needs transfer and fidelity measured.")
    return _verdict(letter, statement, rule, evidence, remark)


def as_text(found: Sequence[Finding]) -> str:
    """One line per finding and one per piece of evidence, for the console."""
    lines = []
    for finding in found:
        lines.append(f"({finding.letter}) {finding.statement} -> {finding.verdict.upper()}")
        lines += [f"    {part.what}: {figure(part.mean)}  {part.says}" for part in finding.evidence]
        lines += [f"    {finding.remark}"] if finding.remark else []
    return "\n".join(lines)


def figure(mean: Mean) -> str:
    """A difference with its interval, in words where there is none."""
    if not mean.edits:
        return "not measured"
    value, low, high = mean.interval
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}], {mean.edits} edits of {mean.sources} sources"


def write_findings(folder: Path, rows: Sequence[EvaluationRow], seed: int = 0) -> str:
    """Write ``findings.md`` into ``folder``; returns the text for the console."""
    found = findings(rows, seed)
    parts = ["# Findings of the paper, from these rows", (__doc__ or "").split("\n\n", 1)[1].strip()]
    for finding in found:
        parts.append(f"## ({finding.letter}) {finding.statement}\n\n**{finding.verdict}**. Rule: {finding.rule}")
        parts += [finding.remark] if finding.remark else []
        if finding.evidence:
            lines = ["| evidence | mean [95 % interval] | by itself |", "|---|---|---|"]
            lines += [f"| {part.what} | {figure(part.mean)} | {part.says} |" for part in finding.evidence]
            parts.append("\n".join(lines))
    write_file(folder / FILE, "\n\n".join(parts) + "\n")
    return as_text(found)
