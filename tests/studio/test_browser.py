"""The studio in a real browser."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile
from browsing import chromium
from recordings import tone

pytestmark = [
    pytest.mark.slow,  # gradio's page takes ten seconds and more to load
    # gradio 6.31 leaves event loops open, and uses an option that pandas 3 has deprecated.
    pytest.mark.filterwarnings("ignore"),
]

#: Seconds after which a state that does not come is an error: each wait ends with its state, on a busy machine late.
PATIENCE = 240
PROMPT = "Prompt: what it shall be"
#: What gradio 6.31 logs of the stream that a reload cuts off.
OF_A_RELOAD = ("AbortError: signal is aborted without reason", "Connection errored out.")


class Tab:
    """A browser with the page."""

    def __init__(self, driver: Any, address: str):
        self.driver, self.address = driver, address
        driver.get(address)
        self.ready()

    def reload(self) -> None:
        self.driver.execute_script("window.before = true")
        self.driver.refresh()
        self.until("!window.before")
        self.ready()

    def ready(self) -> None:
        self.until("document.querySelector('#recording') && document.querySelector('.region')")
        # The events of loading: the draft is stored at their end.
        self.until("localStorage.getItem('apa_studio_token')")

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(f"return {code}", *arguments)

    def until(self, code: str, *arguments: Any) -> None:
        end = time.monotonic() + PATIENCE
        while not self.js(code, *arguments):
            assert time.monotonic() < end, code + "\n" + self.js("document.body.innerText")
            time.sleep(0.2)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def field(self, label: str) -> Any:
        return self.driver.find_element(
            "xpath", f"//label[.//span[normalize-space()='{label}']]//*[self::input or self::textarea]"
        )

    def upload(self, file: Path) -> None:
        if self.js("document.querySelector('#recording button[aria-label=Clear]')"):
            self.find("#recording button[aria-label=Clear]").click()
        self.until("document.querySelector('#recording input[type=file]')")
        self.find("#recording input[type=file]").send_keys(str(file))

    def edits(self) -> int:
        return self.js("document.querySelectorAll('#history input').length")

    def edited(self, number: int) -> None:
        self.until("document.querySelectorAll('#history input').length == arguments[0]", number)

    def play(self) -> None:
        """Press the player's button by keyboard, and wait until it plays, or has played to the end."""
        from selenium.webdriver.common.keys import Keys

        self.driver.switch_to.active_element.send_keys(Keys.ENTER)
        self.until(
            "document.querySelector('.compare-play').innerText == 'Pause'"
            " || document.querySelector('.compare-controls input').value > 0"
        )

    def shot(self, name: str) -> None:
        if folder := os.environ.get("APA_STUDIO_SHOTS"):
            self.driver.save_screenshot(f"{folder}/{name}.png")


@pytest.fixture
def driver(tmp_path) -> Iterator[Any]:
    driver = chromium(
        tmp_path / "profile",
        (1200, 1500),
        "autoplay-policy=no-user-gesture-required",
        logs=("browser", "performance"),
        page_load_strategy="none",
    )
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path / "downloads")}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    yield driver
    log = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
    errors = [message for message in log if not any(told in message for told in OF_A_RELOAD)]
    requests = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = [one["params"]["request"]["url"] for one in requests if one["method"] == "Network.requestWillBeSent"]
    driver.quit()
    assert not errors
    assert urls and not [url for url in urls if not url.startswith(("http://127.0.0.1:", "data:", "blob:", "chrome:"))]


def drag(tab: Tab, start: float, end: float) -> None:
    """Draw a region between two shares of the picture."""
    from selenium.webdriver.common.action_chains import ActionChains

    view = tab.find("#region .region-view")
    tab.js("arguments[0].scrollIntoView({block: 'center'})", view)
    width = view.size["width"]
    actions = ActionChains(tab.driver).move_to_element_with_offset(view, int(width * (start - 0.5)), 0)
    actions.click_and_hold().move_by_offset(int(width * (end - start) / 2), 5)
    actions.move_by_offset(int(width * (end - start) / 2), 0).release().perform()


class Endless:
    """An editor that never makes the last of its two steps."""

    def __init__(self, editor: Any):
        self.editor = editor

    def edit(self, audio: Any, *, progress: Any) -> Any:
        def stepped(done: int, total: int) -> None:
            progress(done, total)
            while done == total - 1:
                progress(done, total)  # which raises what cancels
                time.sleep(0.05)

        return self.editor.edit(audio, progress=stepped)


def test_a_recording_is_edited_compared_and_downloaded(address, driver, tmp_path, sessions, jobs, editor, monkeypatch):
    from selenium.webdriver.common.action_chains import ActionChains

    tab = Tab(driver, address)
    assert tab.find("#cancel").text == "Cancel"
    bad = tmp_path / "<img src=x onerror=alert(1)>.wav"
    bad.write_bytes(b"not a recording")
    tab.upload(bad)
    tab.until("document.querySelector('#status [role=alert]')")
    message = tab.js("document.querySelector('#status').innerText")
    assert "img src=x onerror=alert(1).wav: not a readable audio file" in message  # gradio drops < and > of names
    tab.shot("broken")

    tab.upload(tone(tmp_path / "piano song.wav", 4, rate=22_050))
    tab.until("document.querySelector('#region img').naturalWidth > 0")
    drag(tab, 0.25, 0.75)
    start, end = (float(tab.js(f"document.querySelectorAll('#region input')[{i}].value")) for i in (0, 1))
    assert start == pytest.approx(1, abs=0.05) and end == pytest.approx(3, abs=0.05)
    tab.field(PROMPT).send_keys("a recording of a violin solo <b>")
    tab.find(".label-wrap").click()
    tab.until("[...document.querySelectorAll('span')].some((one) => one.innerText == 'num_inference_steps')")
    tab.field("num_inference_steps").send_keys("2")
    tab.shot("filled")
    tab.find("#edit").click()
    tab.edited(1)
    tab.until("document.querySelectorAll('.compare-choices button').length == 3")
    tab.until("document.querySelector('#status').innerText == 'Done.'")
    tab.shot("edited")
    [session] = sessions.folder.iterdir()
    settings = json.loads(next(session.glob("*/edit.json")).read_text())["settings"]
    assert (settings["region"], settings["num_inference_steps"]) == ([start, end], 2)
    assert settings["prompt"] == "a recording of a violin solo <b>"
    assert not tab.js("document.querySelector('#history b')")

    # A, B and X by keyboard while it plays.
    tab.js("document.querySelector('.compare-play').focus()")
    tab.play()
    for key, name in (("a", "Source"), ("x", "Text only"), ("b", "Edit")):
        ActionChains(driver).send_keys(key).perform()
        chosen = tab.js("document.querySelector('.compare-choices [aria-pressed=true]').innerText")
        assert chosen == f"{key.upper()} · {name}"

    tab.find("#download-wav").click()
    end_of_wait = time.monotonic() + PATIENCE
    while not (found := list((tmp_path / "downloads").glob("*.wav"))):
        assert time.monotonic() < end_of_wait
        time.sleep(0.2)
    info = soundfile.info(found[0])
    assert (info.samplerate, info.frames) == (22_050, 4 * 22_050)

    # A long edit: reloaded in the middle, seen from a second tab, then canceled.
    monkeypatch.setattr(jobs, "editor", Endless(editor))
    tab.find("#edit").click()
    tab.until("document.querySelector('#status progress')?.value == 0.25")
    tab.shot("progress")
    tab.reload()
    tab.until("document.querySelector('#status progress')")
    assert tab.field(PROMPT).get_attribute("value") == "a recording of a violin solo <b>"
    tab.until("document.querySelectorAll('#region input')[0].value == arguments[0]", f"{start:g}")
    assert tab.edits() == 1
    tab.until("document.querySelectorAll('.compare-choices button').length == 3")
    driver.switch_to.new_window("tab")
    other = Tab(driver, address)
    other.until("document.querySelector('#status progress')")
    other.edited(1)
    driver.switch_to.window(driver.window_handles[0])
    tab.find("#cancel").click()
    tab.until("document.querySelector('#status').innerText.startsWith('Canceled')")
    driver.switch_to.window(driver.window_handles[1])
    other.until("document.querySelector('#status').innerText.startsWith('Canceled')")


def test_the_page_fits_a_phone_and_needs_no_mouse(address, driver, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    driver.set_window_size(390, 840)
    tab = Tab(driver, address)
    tab.upload(tone(tmp_path / "song.wav", 2))
    tab.until("document.querySelector('#region img').naturalWidth > 0")
    assert tab.js("document.documentElement.scrollWidth <= innerWidth")
    tab.shot("phone")
    tab.js("document.querySelectorAll('#region input')[0].focus()")

    def press(*keys: str) -> None:
        for one in keys:
            ActionChains(driver).send_keys(one).perform()

    def tab_to(code: str) -> None:
        for _ in range(60):
            if tab.js(f"((one) => {code})(document.activeElement)"):
                return
            press(Keys.TAB)
        raise AssertionError(code)

    press("0.5", Keys.TAB, "1.5", Keys.TAB)
    tab.until("!document.querySelector('#region .region-band').hidden")
    tab_to("one.placeholder == 'a recording of a violin solo'")
    press("jazz style music")
    tab_to("one.id == 'edit'")
    press(Keys.ENTER)
    tab.edited(1)
    tab.until("document.querySelector('#status').innerText == 'Done.'")
    tab_to("one.className == 'compare-play'")
    tab.play()
    tab_to("one.closest('#history')")
    assert tab.js("document.documentElement.scrollWidth <= innerWidth")
    tab.js("document.querySelector('#edit').scrollIntoView()")
    tab.shot("phone_result")
