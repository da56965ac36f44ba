"""The listening test: built from a small evaluation, taken in a real browser, scored."""

import csv
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from apa_lightning.cli.main import main
from apa_lightning.errors import InputError
from apa_lightning.evaluation.rows import ABOUT, KNOBS, METRICS
from apa_lightning.listening_test.answers import Answers, newest
from apa_lightning.listening_test.attention import RULE, why_rejected
from apa_lightning.listening_test.build import build
from apa_lightning.listening_test.key import HIDDEN_SOURCE, Item, Key
from apa_lightning.listening_test.questions import QUESTIONS
from apa_lightning.listening_test.score import crossed_bootstrap, score, table

NAMES = [question.name for question in QUESTIONS]
TASKS = {"timbre": "a recording of a violin solo", "genre": "</script> <b>reggae</b> style music"}
SYSTEMS = ("no_op", "adapter", "text_only")
CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


@pytest.fixture(autouse=True)
def _arguments_of_the_tests_own(monkeypatch):
    monkeypatch.setattr("sys.argv", ["apa_lightning"])


def write_evaluation(folder: Path, sources: int = 3) -> Path:
    """An evaluation's folder with half a second of tone per edit."""
    rows = []
    for task, prompt in TASKS.items():
        for number in range(sources):
            name = f"piano_{number}-to-target"
            for pitch, system in enumerate(SYSTEMS, 1):
                output = f"audio/{task}/{system}/{name}.wav"
                (folder / output).parent.mkdir(parents=True, exist_ok=True)
                tone = 0.2 * np.sin(2 * np.pi * 220 * (pitch + number / 10) * np.arange(8000) / 16000)
                soundfile.write(folder / output, tone, 16000)
                rows.append(
                    {
                        "id": name,
                        "task": task,
                        "system": system,
                        "source": f"piano_{number}",
                        "prompt": prompt,
                        "audio": f"audio/{task}/no_op/{name}.wav",
                        "output": output,
                    }
                )
    write_rows(folder, rows)
    return folder


def write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write ``results.csv``; columns that the listening test does not read stay empty."""
    with open(folder / "results.csv", "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, [*ABOUT, *KNOBS, *METRICS], restval="")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def evaluation(tmp_path) -> Path:
    return write_evaluation(tmp_path / "evaluation")


@pytest.fixture
def test(evaluation, tmp_path) -> Path:
    (tmp_path / ".test.tmp" / "page").mkdir(parents=True)  # of a build that was killed
    build(evaluation, tmp_path / "test", sets_per_task=2)
    assert not (tmp_path / ".test.tmp").exists()
    return tmp_path / "test"


def page_data(test: Path) -> dict[str, Any]:
    page = (test / "page" / "index.html").read_text()
    return json.loads(page.split('id="test">')[1].split("</script>")[0])


def answer(test: Path, listener: str, rate=lambda item, name: None, **changes: Any) -> Path:
    """A file as the page makes it, of a listener who listens unless ``rate`` says something else."""
    key = Key.load(test / "key.json")
    careful = {"adapter": (4, 4, 4), "text_only": (5, 1, 2), HIDDEN_SOURCE: (1, 5, 3)}
    ratings = {
        token: {name: rate(item, name) or value for name, value in zip(NAMES, careful[item.system], strict=True)}
        for token, item in key.items.items()
    }
    content = {"build": key.build, "listener": listener, "saved": "2026-01-01T10:00:00.000Z", "ratings": ratings}
    file = test / "answers" / f"{listener}{changes.pop('name', '')}.json"
    file.write_text(json.dumps(content | changes))
    return file


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
        (np.zeros(0), 16000, "not mono or stereo"),
        (np.zeros((800, 3)), 16000, "not mono or stereo"),
        (np.zeros(121 * 100), 100, "not mono or stereo of up to 120 s"),
    ],
)
def test_audio_that_nobody_can_judge(evaluation, tmp_path, capsys, samples, rate, message):
    soundfile.write(evaluation / "audio/timbre/adapter/piano_0-to-target.wav", samples, rate, "FLOAT", format="WAV")
    build(evaluation, tmp_path / "test", sets_per_task=3)
    assert message in capsys.readouterr().out


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


@pytest.fixture
def browser(tmp_path) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver")
    if not Path(CHROMIUM).exists() or not Path(DRIVER).exists():
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path / 'profile'}",
        "window-size=1100,900",
    ):
        options.add_argument(f"--{flag}")
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_a_listener_in_a_browser(test, browser, tmp_path, capsys):
    """Load, play, rate everything by keyboard, reload midway, download, score."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    key, values = Key.load(test / "key.json"), {"adapter": "434", "text_only": "512", HIDDEN_SOURCE: "153"}
    total = len(key.items) * len(NAMES)

    def press(*keys: str) -> None:
        for one in keys:
            ActionChains(browser).send_keys(one).perform()

    def js(code: str, *arguments: Any) -> Any:
        return browser.execute_script(f"return {code}", *arguments)

    def until(code: str, *arguments: Any) -> None:
        end = time.monotonic() + 20
        while not js(code, *arguments):
            assert time.monotonic() < end, code
            time.sleep(0.05)

    def rate_items(first: int = 0) -> None:
        """From the player of one item to the end of the set: space, three numbers, and so on."""
        for token in js("[...main.querySelectorAll('.item')].map((item) => item.dataset.item)")[first:]:
            place = "document.querySelector(`[data-item='${arguments[0]}']`)"
            assert js(f"{place}.contains(document.activeElement)", token)
            press("3")  # not before it is played
            assert js("state.ratings[arguments[0]] === undefined", token)
            press(Keys.SPACE)
            until(f"!{place}.querySelector('fieldset').disabled", token)
            assert js("[...document.querySelectorAll('audio')].filter((audio) => !audio.paused).length") <= 1
            press(*values[key.items[token].system])
        assert js("document.activeElement.className") == "next"
        assert js("main.querySelector('.missing').textContent") == "This set is complete"

    def downloaded() -> dict[str, Any]:
        end = time.monotonic() + 20
        while not (files := list((tmp_path / "downloads").glob("answers-*.json"))):
            assert time.monotonic() < end
            time.sleep(0.05)
        content = json.loads(files[0].read_text())
        files[0].rename(test / "answers" / files[0].name)
        return content

    browser.get((test / "page" / "index.html").as_uri())
    press(Keys.ENTER)
    order = js("state.order")
    for number, entry in enumerate(order):
        press("0")
        until("main.querySelector('.original audio').currentTime > 0")
        press(Keys.ARROW_DOWN)
        if number == 1:  # reload in the middle of an edit
            press(Keys.SPACE)
            until("!main.querySelector('fieldset').disabled")
            answers = values[key.items[entry["items"][0]].system]
            press(answers[0])
            kept = js("JSON.stringify(state)")
            browser.refresh()
            assert js("JSON.stringify(state)") == kept  # ratings, order, listener, position
            assert js("main.querySelector('h1').textContent") == "Set 2 of 4"
            assert js("main.querySelector(':checked').value") == answers[0]
            assert js("document.activeElement.closest('fieldset').dataset.question") == "fidelity"
            given = len(NAMES) * len(order[0]["items"]) + 1
            assert js("document.getElementById('progress').value") == given
            browser.find_element("id", "download").click()
            midway = downloaded()
            assert (midway["complete"], sum(map(len, midway["ratings"].values()))) == (False, given)
            browser.find_element(
                "css selector", "fieldset:not(:has(:checked)) label"
            ).click()  # by mouse, then corrected
            press(*answers[1:])
        rate_items(first=int(number == 1))
        press(Keys.ENTER)  # Next
    assert js("main.querySelector('h1').textContent") == "Thank you!"
    assert js("document.getElementById('progress').position") == 1
    browser.find_element("css selector", ".download").click()
    content = downloaded()
    assert content["complete"]
    assert content["order"] == order
    assert sum(map(len, content["ratings"].values())) == total
    assert content["listener"] == midway["listener"]
    assert content["started"] < content["saved"] <= content["downloaded"]
    assert not browser.get_log("browser")

    capsys.readouterr()
    main(["listening-test", "score", "--answers", str(test / "answers"), "--out", str(tmp_path / "table")])
    out = capsys.readouterr().out
    assert "| all | adapter | 4.00 [4.00, 4.00] | 3.00 [3.00, 3.00] | 4.00 [4.00, 4.00] | 4 |" in out
    assert "1 counted, 0 rejected" in out
    assert (tmp_path / "table" / "table2.csv").is_file()


def test_listeners_hear_different_orders_and_the_page_fits_a_phone(test, browser):
    browser.get((test / "page" / "index.html").as_uri())
    orders = {browser.execute_script("return JSON.stringify(fresh().order)") for _ in range(8)}
    assert len(orders) > 1
    again = "const random = generator(state.listener); return JSON.stringify(shuffled(TEST.sets, random).map((set) => set.token))"
    assert browser.execute_script(again) == browser.execute_script(
        "return JSON.stringify(state.order.map((entry) => entry.set))"
    )
    browser.set_window_size(360, 700)
    browser.execute_script("go(0)")
    assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    assert not browser.execute_script(
        "return [...document.querySelectorAll('button, input, progress')].filter((one) => one.offsetParent &&"
        " !one.closest('label') && !one.textContent.trim() && !one.ariaLabel).length"
    )
