"""The real command line in processes of their own, to be killed from outside.

They are forked from this one, which has imported everything: what takes time is the command's work, not its start.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from apa_lightning.cli.main import main

ROOT = Path(__file__).parents[3]
FORK = multiprocessing.get_context("fork")
HANGS = 180
"""Seconds after which a command that has not ended hangs."""


class Command:
    """``python -m apa_lightning`` as it runs.

    Args:
        arguments: of the command line.
        log: file that gets its standard output and errors (``-rank1`` and so on are added to its name under DDP).
        ranks: so many processes under DDP, as torchrun starts them; ``--trainer.devices`` and ``strategy`` are set.
        environment: more environment variables.
        before: called in the process before the command.
        machines: so many machines, on which the ranks are spread evenly; ``NODE_RANK`` numbers them.
        run: called in the process with the arguments.
    """

    def __init__(
        self,
        arguments: Sequence[object],
        log: Path,
        ranks: int = 1,
        environment: Mapping[str, str] | None = None,
        before: Callable[[], object] = lambda: None,
        machines: int = 1,
        run: Callable[[list[str]], object] = main,
    ):
        arguments = [str(argument) for argument in arguments]
        each = ranks // machines
        if ranks > 1 and arguments[0] not in ("evaluate", "sweep"):  # these have no Trainer: processes share the folder
            arguments += ["--trainer.strategy=ddp", f"--trainer.devices={each}", "--trainer.accelerator=cpu"]
            arguments += [f"--trainer.num_nodes={machines}"]
        port = str(free_port())
        log.parent.mkdir(parents=True, exist_ok=True)
        self.logs = [log.with_name(f"{log.stem}-rank{rank}{log.suffix}" if rank else log.name) for rank in range(ranks)]
        self.processes = []
        for rank, path in enumerate(self.logs):
            more = {}
            if ranks > 1:
                more = {"LOCAL_RANK": str(rank % each), "NODE_RANK": str(rank // each)}
                more |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            process = FORK.Process(target=_run, args=(arguments, path, more | dict(environment or {}), before, run))
            process.start()
            self.processes.append(process)

    @property
    def pid(self) -> int:
        return self.processes[0].pid

    @property
    def running(self) -> bool:
        return any(process.is_alive() for process in self.processes)

    @property
    def output(self) -> str:
        return "\n".join(path.read_text(errors="replace") for path in self.logs if path.exists())

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send every process a signal; it may have ended already."""
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, signum)

    def wait(self, timeout: float = HANGS) -> int:
        """The exit code, of the first process that failed under DDP; negative for a signal.

        Raises:
            AssertionError: it hangs; it is killed.
        """
        end = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        if self.running:
            self.kill()
            for process in self.processes:
                process.join()
            raise AssertionError(f"hangs after {timeout} s:\n{self.output[-2000:]}")
        return next((process.exitcode for process in self.processes if process.exitcode), 0)

    def wait_until(self, condition: Callable[[], object], timeout: float = HANGS) -> bool:
        """Wait for something to be seen from outside; False if the command ended before."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if condition():
                return True
            if not self.running:
                return bool(condition())
            time.sleep(0.001)
        self.kill()
        raise AssertionError(f"nothing happened in {timeout} s:\n{self.output[-2000:]}")


def _run(
    arguments: list[str],
    log: Path,
    environment: Mapping[str, str],
    before: Callable[[], object],
    run: Callable[[list[str]], object],
) -> None:
    with open(log, "w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    # What is said goes there, and not to pytest's ears.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
    logging.getLogger().handlers.clear()
    warnings.resetwarnings()  # pytest makes errors of them
    warnings.showwarning = lambda *about, **_: print(warnings.formatwarning(*about[:4]), file=sys.stderr)
    os.chdir(ROOT)
    os.environ |= {"HF_HUB_OFFLINE": "1", **environment}
    for signum in (signal.SIGINT, signal.SIGTERM):  # pytest's own are not the command's
        signal.signal(signum, signal.default_int_handler if signum == signal.SIGINT else signal.SIG_DFL)
    before()
    run(arguments)


def free_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
