"""A case meets the command line."""

import contextlib
import sys
from collections.abc import Callable

import pytest
from bad_inputs.cases import Case, check
from bad_inputs.ends import End, run
from bad_inputs.room import ROOT, Room


@pytest.fixture(scope="module")
def together() -> dict[str, tuple[Room, End]]:
    """The room and end of the one run of all cases with members, once it was."""
    return {}


@pytest.fixture
def meet(tmp_path, monkeypatch, capfd, caplog, together) -> Callable[[Case], None]:
    def meet(case: Case) -> None:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["apa_lightning"])
        with contextlib.ExitStack() as stack:
            if case.members is None or not together:
                room = Room(tmp_path, monkeypatch, stack)
                end = run(room, case.prepare(room), capfd, caplog, case.ranks)
                if case.members is not None:
                    together["run"] = room, end
            else:
                room, end = together["run"]
            check(case, room, end)

    return meet
