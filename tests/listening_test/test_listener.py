"""A listening test taken in a real browser."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from browsing import chromium
from listening_tools import NAMES

from apa_lightning.cli.main import main
from apa_lightning.listening_test.key import HIDDEN_SOURCE, Key


@pytest.fixture
def browser(tmp_path) -> Iterator[Any]:
    driver = chromium(tmp_path / "profile", (1100, 900))
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
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
            until("JSON.stringify(state) === arguments[0]", kept)  # ratings, order, listener, position
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
