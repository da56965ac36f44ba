"""Spins of waiting OpenMP threads: set before torch is imported, and never against a user's own setting."""

import os
import re
import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "70"}, "70"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_the_library_that_torch_loads_reads_the_spin_count(given, spins):
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    code = "import apa_lightning.errors, sys; assert 'torch' not in sys.modules; import torch"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env | {"OMP_DISPLAY_ENV": "verbose"} | given
    )
    assert ran.returncode == 0, ran.stderr
    if "GOMP_SPINCOUNT" not in ran.stderr:
        pytest.skip("this torch has another OpenMP library")
    assert re.findall(r"GOMP_SPINCOUNT = '(\d+)'", ran.stderr) == [spins]
