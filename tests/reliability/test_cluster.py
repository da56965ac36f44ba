"""Preemption as clusters do it: SLURM's requeue signal, and signals to one process of several."""

import os
import signal
from pathlib import Path

import pytest
from diary import lines
from observed_fit import Fit, bomb, check_continued
from slurm import slurm

NAME = "Sample-exact resume"


@pytest.mark.slow
def test_slurm_requeues_and_the_same_command_goes_on(tmp_path: Path, promise) -> None:
    job, fit = slurm(tmp_path, 7), Fit()
    run = fit.start(tmp_path, *bomb("on_before_optimizer_step", 17, int(signal.SIGUSR1)), environment=job)
    code = run.wait()
    asked = (tmp_path / "scontrol.txt").read_text() if (tmp_path / "scontrol.txt").exists() else ""
    saved = list(tmp_path.glob("hpc_ckpt_*.ckpt"))
    assert (asked, len(saved)) == ("requeue 7\n", 1), run.output
    assert code == 128 + signal.SIGUSR1
    difference = check_continued(fit, tmp_path, True, (), job)
    promise(NAME, not difference, 1, "SLURM requeues")
    assert not difference
    assert not list(tmp_path.glob("hpc_ckpt_*")) and len(list((tmp_path / "lightning_logs").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_leaves_the_workers_at_work(signum: int, tmp_path: Path, promise) -> None:
    """As Ctrl+C, timeout(1), scancel and service managers send it."""
    fit = Fit(workers=2)
    run = fit.start(tmp_path, before=os.setpgrp)
    run.wait_until(lambda: len(lines(tmp_path / "diary.jsonl")) > 8)
    os.killpg(run.pid, signum)
    code = run.wait()
    difference = check_continued(fit, tmp_path, True) if code == 128 + signum else f"{code} {run.output[-1500:]}"
    promise(NAME, not difference, 1, "stops by a signal to the whole group")
    assert not difference


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_one_rank_is_asked_and_all_stop(rank: int, signum: int, tmp_path: Path, promise) -> None:
    """At a moment when its gradients may be on their way to the other."""
    fit = Fit(ranks=2)
    run = fit.start(tmp_path)
    run.wait_until(lambda: len(lines(tmp_path / "diary.jsonl")) > 8)
    os.kill(run.processes[rank].pid, signum)
    code = run.wait(60)
    seen = [
        {line["batch"] for line in lines(tmp_path / f"diary.jsonl{end}") if "batch" in line} for end in ("", "-rank1")
    ]
    difference = "" if code == 128 + signum and seen[0] == seen[1] else f"{code} {seen}"
    difference = difference or check_continued(fit, tmp_path, True)
    promise(NAME, not difference, 1, "stops of two ranks by a signal to one")
    assert not difference, run.output[-2000:]
