"""The table of bad inputs is whole, and a real shell sees what the tests in this process see."""

import subprocess
import sys

import pytest
from bad_inputs.room import ROOT
from bad_inputs.table import CASES


def test_the_table_is_whole():
    assert {case.number for case in CASES} == set(range(1, 25))
    assert len({str(case) for case in CASES}) == len(CASES)


@pytest.mark.slow
def test_from_a_real_shell():
    command = ["fit", "--config", "configs/base.yaml", "--model.backbone", "nowhere/at/all"]
    done = subprocess.run([sys.executable, "-m", "apa_lightning", *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
