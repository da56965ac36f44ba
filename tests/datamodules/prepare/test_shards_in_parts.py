"""The `shards` command as a job array: parts in any order, a missing one, and what must not be mixed."""

import json

import pytest

from apa_lightning.cli.main import main
from apa_lightning.errors import InputError


def shards(source, *arguments: str) -> None:
    """The command, as it is typed."""
    paths = {"segments": source.segments, "clips": source.clips, "out": source.out, "class_labels": source.classes}
    main(["shards", *(f"--{name}={path}" for name, path in paths.items()), "--workers=0", *arguments])


def test_parts_make_together_what_one_run_makes(source, capsys: pytest.CaptureFixture[str]) -> None:
    source.many(7)
    source.lines(*source.segments.read_text().splitlines()[3:], 'dead, 0, 10, "/m/violin"')
    shards(source, "--name=whole", "--max_samples=2")
    shards(source, "--part=2/3", "--max_samples=2")
    out = capsys.readouterr().out
    assert "Parts that are not finished yet: 1/3, 3/3. If no task is making them: " in out and "--part 1/3" in out
    shards(source, "--part=3/3", "--max_samples=2")
    before = {path: path.stat().st_mtime_ns for path in source.out.glob("train-*.tar")}
    assert {path.name for path in before} == {
        f"train-{name}.tar" for name in ("2of3-000000", "2of3-000001", "3of3-000000")
    }
    shards(source, "--part=2/3", "--max_samples=2")  # again: nothing is made twice
    assert "complete already" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    shards(source, "--part=1/3", "--max_samples=2")
    out = capsys.readouterr().out
    assert "All 3 parts are finished" in out and "written          7  in 4 shards" in out
    assert source.samples() == source.samples("whole")
    assert [(row["key"], row["status"]) for row in source.report()] == [("dead_0", "missing")]
    whole, merged = (json.loads((source.out / f"{name}-report.json").read_text()) for name in ("whole", "train"))
    same = ("complete", "next", "samples", "prompts", "counts", "settings", "problems")
    assert all(merged[field] == whole[field] for field in same) and merged["parts"] == 3
    shards(source, "--max_samples=2")  # of the whole there is nothing left to do
    assert "complete already" in capsys.readouterr().out
    assert not list(source.out.glob("train-0*.tar"))


def test_parts_of_two_divisions_are_not_mixed(source) -> None:
    source.many(4)
    source.run(part="1/2")
    with pytest.raises(InputError, match=r"holds parts of 2: give --part N/2\."):
        source.run(part="1/4")
    with pytest.raises(InputError, match=r"holds parts of 2: give --part N/2\."):
        source.run()
    source.run(overwrite=True)
    assert {path.name for path in source.out.glob("*.tar")} == {"train-000000.tar"} and len(source.samples()) == 4
    with pytest.raises(InputError, match="holds shards that were made without --part"):
        source.run(part="2/2")
    source.run(part="2/2", overwrite=True)
    source.run(part="1/2")
    assert {path.name for path in source.out.glob("*.tar")} == {"train-1of2-000000.tar", "train-2of2-000000.tar"}


def test_parts_with_other_settings_are_not_merged(source, capsys: pytest.CaptureFixture[str]) -> None:
    source.many(4)
    source.run(part="1/2")
    with pytest.raises(InputError, match=r"part 1/2 in '.*' was made with another max_samples\. Give the same"):
        source.run(part="2/2", max_samples=1)
    source.run(part="2/2", max_samples=1, overwrite=True)
    assert "not finished yet: 1/2." in capsys.readouterr().out and not (source.out / "train-report.json").exists()
    source.run(part="1/2", max_samples=1, overwrite=True)
    assert "All 2 parts are finished" in capsys.readouterr().out and len(source.samples()) == 4


def test_more_parts_than_clips(source) -> None:
    source.many(2)
    for number in range(1, 5):
        source.run(part=f"{number}/4")
    assert len(source.samples()) == 2
