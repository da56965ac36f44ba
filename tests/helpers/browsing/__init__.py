"""Debian's Chromium without a screen, for tests of pages."""

from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"


def chromium(
    profile: Path, size: tuple[int, int], *flags: str, logs: tuple[str, ...] = ("browser",), **options: Any
) -> Any:
    """A driver of Chromium that asks nobody for updates; without Chromium or selenium the test is skipped.

    Args:
        profile: Folder of the browser's own files.
        size: Width and height of the window in pixels.
        flags: More of Chromium's flags.
        logs: Logs that are kept whole.
        options: More options of selenium.
    """
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.common import exceptions

    if not Path(CHROMIUM).exists() or not Path(DRIVER).exists():
        pytest.skip("needs Debian's chromium and chromium-driver")
    settings = webdriver.ChromeOptions()
    settings.binary_location = CHROMIUM
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={profile}",
        f"window-size={size[0]},{size[1]}",
        *flags,
    ):
        settings.add_argument(f"--{flag}")
    settings.set_capability("goog:loggingPrefs", dict.fromkeys(logs, "ALL"))
    for name, value in options.items():
        setattr(settings, name, value)
    # The driver waits a minute for Chromium to start, which is too short on a busy machine.
    for tries_left in (2, 1, 0):
        try:
            return webdriver.Chrome(options=settings, service=webdriver.ChromeService(DRIVER))
        except exceptions.SessionNotCreatedException:
            if not tries_left:
                raise
