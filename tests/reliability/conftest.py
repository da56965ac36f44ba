"""The table of promises: tests here note what they counted, and the summary prints it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from damages import SAMPLES
from shard_tools import write_shards

PROPERTY = "promise"


@pytest.fixture
def promise(record_property) -> Callable[..., None]:
    """Note a row of the table: ``promise("No hang", reached=12, of=12, what="layouts finish")``.

    Call it once per test with what was counted, before asserting, so that a miss shows in the table too. Rows of the same
    promise and ``what`` from several tests are added up.
    """

    def note(name: str, reached: int, of: int, what: str, measured: str = "") -> None:
        record_property(
            PROPERTY, json.dumps({"name": name, "reached": reached, "of": of, "what": what, "measured": measured})
        )

    return note


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Two whole shards; copy them before you damage one."""
    folder = tmp_path_factory.mktemp("whole")
    write_shards(folder, 2 * SAMPLES, SAMPLES)
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows: dict[tuple[str, str], list] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for key, value in getattr(report, "user_properties", ()):
                if key != PROPERTY or report.when != "call":
                    continue
                row = json.loads(value)
                total = rows.setdefault((row["name"], row["what"]), [0, 0, []])
                total[0] += row["reached"]
                total[1] += row["of"]
                total[2] += [row["measured"]] if row["measured"] else []
    if not rows:
        return
    terminalreporter.section("promises")
    terminalreporter.write_line("| promise | reached | measured |\n|---|---|---|")
    for (name, what), (reached, of, measured) in rows.items():
        terminalreporter.write_line(f"| {name} | {reached} of {of} {what} | {'; '.join(measured)} |")
