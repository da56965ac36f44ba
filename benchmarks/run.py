"""Asks every question and prints the table: ``python benchmarks/run.py [--quick] [--cpu] [--large FOLDER] [QUESTION ...]``.

Without names all are asked: startup, loader, edits, training, neighbor, large. The state to compare with is a git worktree of the
commit ``BASELINE`` in the folder of the results, which is made where it is missing.
"""

import argparse
import importlib
import os
import subprocess
from pathlib import Path

import report
import scale as scales
from timing import CLOCK, THIS, Result

QUESTIONS = ("startup", "loader", "edits", "training", "neighbor", "large")
#: The state before the work on speed: named by its commit, because a clone need not have a tag.
BASELINE = "004d2829b2e37f502e4bdee2327c73c97f5072e8"


def main(args: list[str] | None = None) -> list[Result]:
    """Ask, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("questions", nargs="*", help=f"Some of: {', '.join(QUESTIONS)}.")
    parser.add_argument("--quick", action="store_true", help="Fewer and shorter runs: a first look.")
    parser.add_argument("--tiny", action="store_true", help="One run of each, to see that the programs work.")
    parser.add_argument(
        "--cpu", action="store_true", help="Count seconds of the CPU: where other work shares the cores."
    )
    parser.add_argument("--large", type=Path, help="Folder for AudioLDM2-large with random weights (5 GB).")
    parser.add_argument("--out", type=Path, default=THIS / "runs" / "benchmarks", help="Folder of the results.")
    parser.add_argument("--today", type=Path, help=f"Source tree to compare with, by default one of {BASELINE[:7]}.")
    given = parser.parse_args(args)
    if unknown := set(given.questions) - set(QUESTIONS):
        parser.error(f"{', '.join(sorted(unknown))}: is not a question; give some of {', '.join(QUESTIONS)}.")
    if given.cpu:
        os.environ[CLOCK] = "cpu"
    work = given.out.resolve() / "work"
    work.mkdir(parents=True, exist_ok=True)
    today = given.today.resolve() if given.today else worktree(given.out.resolve() / "baseline")
    sized = scales.tiny if given.tiny else scales.quick if given.quick else scales.full
    scale = sized(work, today)
    if given.large:
        scale = scales.replace(scale, large=given.large.resolve())
    results: list[Result] = []
    for name in given.questions or QUESTIONS:
        for result in importlib.import_module(name).ask(scale):
            results.append(result)
            print(report.table([result]).splitlines()[-1], flush=True)
            report.write(results, given.out)  # what is known stays, whatever happens later
    print(report.table(results))
    print(f"results.json, results.md and results.png in {given.out}")
    return results


def worktree(folder: Path) -> Path:
    """A checkout of the state to compare with."""
    if not folder.exists():
        git = ["git", "-C", str(THIS)]
        if subprocess.run([*git, "cat-file", "-e", f"{BASELINE}^{{commit}}"], capture_output=True).returncode:
            raise SystemExit(
                f"benchmarks: {THIS} has no commit {BASELINE[:7]} to compare with. In a shallow clone run "
                "'git fetch --unshallow'; elsewhere give a source tree of it: --today FOLDER."
            )
        subprocess.run([*git, "worktree", "prune"], check=True)
        subprocess.run([*git, "worktree", "add", "--detach", str(folder), BASELINE], check=True)
    return folder


if __name__ == "__main__":
    main()
