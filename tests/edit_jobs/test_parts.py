"""Parts of a long command, and SLURM's job arrays."""

import pytest

from apa_lightning.edit_jobs.parts import Part
from apa_lightning.errors import InputError


def array(
    monkeypatch: pytest.MonkeyPatch, number: object, first: int, last: int, count: int, step: object = ""
) -> None:
    values = {"ID": number, "MIN": first, "MAX": last, "COUNT": count, "STEP": step}
    for name, value in values.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))


@pytest.mark.parametrize("number", [1, 3, 7, 20])
def test_all_parts_together_are_the_whole(number: int) -> None:
    items = list(range(11))
    parts = sorted([Part(1, number), *Part(1, number).others()])
    assert sorted(item for part in parts for item in part.every(items)) == items
    stretches = [part.stretch(items) for part in parts]
    assert [item for stretch in stretches for item in stretch] == items
    assert max(map(len, stretches)) - min(map(len, stretches)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "1/0", "-1/3", "3", "1/", "a/b", "1.5/3", "", "1/3/4"])
def test_what_is_not_a_part_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=rf"^part: '{text}' is not a part"):
        Part.read(text)


def test_the_place_in_an_array_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^part: slurm, but this is not a task of a SLURM array"):
        Part.read("slurm")
    array(monkeypatch, 3, 1, 16, 16)
    assert Part.read(None) is None  # never without being asked for
    assert Part.read("slurm") == Part.read(" 3/16 ") == Part(3, 16)
    array(monkeypatch, 0, 0, 15, 16, 1)
    assert Part.read("slurm") == Part(1, 16)
    array(monkeypatch, 9, 1, 13, 4, 4)
    assert Part.read("slurm") == Part(3, 4)
    array(monkeypatch, 7, 1, 9, 3)  # --array=1,7,9
    with pytest.raises(InputError, match=r"not evenly numbered.*--part \$SLURM_ARRAY_TASK_ID/16"):
        Part.read("slurm")
