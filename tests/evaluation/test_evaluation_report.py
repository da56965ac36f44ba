"""report.html: escaped, complete in itself, and in words where figures are missing."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from evaluation_rows import STRENGTHS, noise, rows_of, swept

from apa_lightning.errors import InputError
from apa_lightning.evaluation.report import plots
from apa_lightning.evaluation.report.page import write_report
from apa_lightning.evaluation.rows import EvaluationRow

NASTY = "</script><script>alert(1)</script>"
SETS = [
    {"task": "timbre", "system": system, "metric": "fad_infinity", "value": 1.0, "low": 0.9, "high": 1.1, "why": "",
     "edits": 20, "reference": 20, "fit": [[0.1, 2.0], [0.05, 1.5]]}
    for system in ("adapter", "sdedit")
]  # fmt: skip


def example() -> list[EvaluationRow]:
    rows = rows_of(
        "adapter", lambda i: {"clap": 0.3 + noise(i), "chroma": 0.7 + noise(i + 2), "recognised": float(i % 2)}
    )
    return rows + rows_of("sdedit", lambda i: {"clap": 0.2 + noise(i), "chroma": 0.6}, strength=0.75)


class Parsed(HTMLParser):
    """Checks that tags close as they opened, and keeps what was seen."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def written(folder, rows, set_metrics=(), about=None, **settings) -> str:
    path = write_report(folder, list(rows), list(set_metrics), about or {}, **settings)
    text = path.read_text()
    Parsed(text)
    return text


def edits_of(text: str) -> list[dict]:
    return json.loads(re.search(r"<script type=application/json id=edits>(.*?)</script>", text, re.S)[1])["edits"]


def test_the_whole_report(tmp_path):
    text = written(tmp_path, example(), SETS, {"set": "solos", "systems": {"adapter": "ours"}})
    for title in ("Table 1", "Plots", "All other metrics", "Listen"):
        assert f">{title}</h2>" in text
    assert text.count("<svg") == 3 and ">Sweep</h2>" not in text and ">Findings</h2>" not in text
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        "trade_off.png",
        "differences.png",
        "fad_infinity.png",
    }
    assert not re.findall(r'(?:src|href)="?(?:https?:)?//', re.sub(r'xlink:href="[^"]*"|xmlns[^ >]*', "", text))


def test_the_listening_part_names_every_edit_once_with_the_audio_that_is_there(tmp_path):
    rows = example()
    for path in (rows[0].audio, rows[0].output):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"RIFF")
    edits = edits_of(written(tmp_path, rows))
    assert len(edits) == 20 and [system["name"] for system in edits[0]["systems"]] == ["adapter", "sdedit"]
    assert edits[0]["audio"] == rows[0].audio and edits[0]["systems"][0]["audio"] == rows[0].output
    assert edits[0]["systems"][1]["audio"] == edits[1]["audio"] == ""
    assert ["CLAP", f"{rows[1].score('clap'):.3f}", True] in edits[1]["systems"][0]["scores"]
    assert ["target recognized", "yes", True] in edits[1]["systems"][0]["scores"]


def test_addresses_are_quoted_and_the_source_is_no_system(tmp_path):
    (row,) = rows_of("adapter ap_scale=0.2", lambda i: {}, 1)
    same = replace(row, about={**row.about, "system": "no_op", "output": row.audio}, scores={})
    odd = replace(row, about={**row.about, "output": "audio/a b#1?.wav"})
    (tmp_path / "audio").mkdir()
    (tmp_path / odd.output).write_bytes(b"RIFF")
    (edit,) = edits_of(written(tmp_path, [same, odd]))
    assert [(one["name"], one["audio"], one["swept"]) for one in edit["systems"]] == [
        ("adapter ap_scale=0.2", "audio/a%20b%231%3F.wav", True)
    ]


def test_tasks_stay_together(tmp_path):
    rows = [*rows_of("adapter", lambda i: {}, 2), *rows_of("adapter", lambda i: {}, 2, task="genre")]
    rows += rows_of("sdedit", lambda i: {}, 4)
    assert [edit["task"] for edit in edits_of(written(tmp_path, rows))] == ["timbre"] * 4 + ["genre"] * 2


def test_all_text_is_escaped(tmp_path):
    rows = [
        replace(row, about={**{name: NASTY for name in row.about}, "id": f"{NASTY}{i}", "system": NASTY + row.system})
        for i, row in enumerate(example())
    ]
    about = {
        "set": NASTY,
        "systems": {NASTY: NASTY},
        "skipped_metrics": {NASTY: NASTY},
        "command": NASTY,
        "clap": NASTY,
    }
    text = written(tmp_path, rows, [{**SETS[0], "task": NASTY, "system": NASTY}, {**SETS[0], "value": None, "why": NASTY}],
                   about)  # fmt: skip
    assert NASTY not in text
    assert edits_of(text)[0]["source"] == NASTY
    assert [tag for tag, _ in Parsed(text).seen].count("script") == 2


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], ("No edits have been measured.", "There is nothing to listen to yet.", "no two systems to compare")),
        (rows_of("adapter", lambda i: {}), ("CLAP against chroma needs", "Not measured: CLAP", "FAD-infinity was not")),
        (rows_of("adapter", lambda i: {"clap": 0.3}, 1), ("0.300", "no two systems to compare")),
        (rows_of("sdedit strength=0.5", lambda i: {}), ("CLAP and chroma were not measured.",)),
    ],
    ids=["nothing", "no figures", "one edit", "only a point of a sweep"],
)
def test_what_is_missing_is_said_in_words(tmp_path, rows, words):
    text = written(tmp_path, rows)
    assert all(word in text for word in words)
    assert "<svg" not in text and "nan" not in re.sub(r"<(script|style).*?</\1>", "", text, flags=re.S)


def test_the_reference_can_be_chosen(tmp_path):
    assert "Each system less sdedit" in written(tmp_path, example(), reference="sdedit")
    with pytest.raises(InputError, match=r"'melody'.*adapter, sdedit"):
        write_report(tmp_path, example(), [], {}, reference="melody")


def test_a_sweep_has_its_section(tmp_path):
    rows = swept({"ap_scale": -0.1}, {"ap_scale": 0.2})
    for strength in STRENGTHS:
        rows += rows_of(f"sdedit strength={strength}", lambda i, s=strength: {"clap": 0.3 * s, "chroma": 1 - s / 2},
                        strength=strength, ap_scale=0.0)  # fmt: skip
    text = written(tmp_path, rows)
    assert (
        ">Sweep</h2>" in text
        and ">Findings</h2>" in text
        and "Operating point: <b>adapter" in text
        and "alpha (ap_scale)" in text
    )
    assert "harmonic mean" in text and "<th>CLAP</th>" in text and (tmp_path / "plots/sweep_timbre.png").is_file()
    write_report(tmp_path, example(), [], {})
    assert not (tmp_path / "plots/fad_infinity.png").exists()


def test_a_sweep_without_clap_says_so(tmp_path):
    rows = [
        replace(row, columns={name: row.columns[name] for name in ("chroma", "chroma_floor", "melody", "melody_floor")})
        for row in swept({"ap_scale": -0.1}, {"ap_scale": 0.2}, count=4)
    ]
    text = written(tmp_path, rows)
    assert (
        "CLAP and chroma were not measured." in text and "Operating point:" not in text and "alpha (ap_scale)" in text
    )


def test_plots_do_not_read_names_as_formulas_and_keep_their_ids_apart():
    rows = rows_of("a_$b$", lambda i: {"clap": 0.3, "chroma": 0.5}) + rows_of(
        "$", lambda i: {"clap": 0.1, "chroma": 0.4}
    )
    figure = plots.trade_off(rows)
    first, second = plots.as_svg(figure, "first"), plots.as_svg(figure, "second")
    assert "a_$b$" in first and "currentColor" in first and plots.INK not in first

    def clips(svg: str) -> set[str]:
        return set(re.findall(r'clipPath id="(\w+)"', svg))

    assert clips(first) and not clips(first) & clips(second)
