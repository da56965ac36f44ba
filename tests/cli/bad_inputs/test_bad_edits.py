"""Manifests, prompts and settings of edits: how each command ends, its message, and what is left on the disk."""

import pytest
from bad_inputs.edits import CASES


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_input(case, meet):
    meet(case)
