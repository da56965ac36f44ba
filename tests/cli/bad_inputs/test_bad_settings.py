"""Configuration files and command lines: how each command ends, its message, and what is left on the disk."""

import pytest
from bad_inputs.settings import CASES


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_input(case, meet):
    meet(case)
