"""Full disks, output folders, weights that are not there: how each command ends, its message, and what is left on the disk."""

import pytest
from bad_inputs.folders import CASES


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_input(case, meet):
    meet(case)
