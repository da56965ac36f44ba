"""The environment of a SLURM job."""

import os
from pathlib import Path


def slurm(folder: Path, job: int) -> dict[str, str]:
    """A job's environment, with a scontrol that notes what it is asked to do."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder}/scontrol.txt\n')
    (tools / "scontrol").chmod(0o755)
    job_settings = {"SLURM_JOB_ID": str(job), "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "1", "SLURM_NODEID": "0"}
    ids = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODELIST": "localhost"}
    return {**job_settings, **ids, "PATH": f"{tools}:{os.environ['PATH']}"}
