"""Two machines that share a disk: network namespaces of this one, joined by a cable."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from processes import Command, free_port

from apa_lightning.cli.main import main

ADDRESS = "10.77.0.{}"
CABLE = "cable0"
NEW_NETWORK = 0x40000000  # CLONE_NEWNET; os.setns came with Python 3.12


class Machines:
    """Two namespaces with a cable between them; see `two_machines`."""

    def __init__(self, names: Sequence[str]):
        self.names = names

    def start(
        self,
        arguments: Sequence[object],
        log: Path,
        torchrun: bool = False,
        before: Callable[[], object] = lambda: None,
        strategy: Sequence[str] = (),
    ) -> Command:
        """Start one process of the command on each.

        Args:
            arguments: of the command line.
            log: as of `Command`.
            torchrun: start it by torchrun, as a user does; otherwise it is forked, which saves imports.
            before: as of `Command`; not with torchrun.
            strategy: flags of the Trainer's strategy in place of ``ddp``.
        """
        port = str(free_port())
        environment = {"MASTER_ADDR": ADDRESS.format(1), "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": CABLE}
        environment["OMP_NUM_THREADS"] = "1"

        def forked(arguments: list[str]) -> None:
            self._enter()
            before()
            main([*arguments, *strategy])

        return Command(arguments, log, 2, environment, machines=2, run=self._torchrun if torchrun else forked)

    def _torchrun(self, arguments: list[str]) -> None:
        self._enter()
        own, nodes = os.environ.pop("LOCAL_RANK"), os.environ.pop("NODE_RANK")
        assert own == "0"
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        flags = {"nnodes": 2, "node_rank": nodes, "nproc_per_node": 1, "max_restarts": 0}
        flags |= {name: os.environ.pop(name.upper()) for name in ("master_addr", "master_port")}
        typed = [f"--{name}={value}" for name, value in flags.items()]
        os.execv(
            sys.executable,
            [sys.executable, "-m", "torch.distributed.run", *typed, "-m", "apa_lightning", *arguments],
        )

    def _enter(self) -> None:
        with open(f"/run/netns/{self.names[int(os.environ['NODE_RANK'])]}") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), NEW_NETWORK):
                raise OSError(ctypes.get_errno(), "setns")

    def kill(self, number: int) -> None:
        """Kill everything on one of the two at once."""
        for pid in _ip("netns", "pids", self.names[number]).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def cable(self, state: str) -> None:
        """Take the cable out ("down") or put it back ("up"): nothing says so to the programs."""
        _ip("-n", self.names[1], "link", "set", CABLE, state)


@contextlib.contextmanager
def two_machines() -> Iterator[Machines]:
    """Two machines, and nothing left of them afterwards.

    Raises:
        OSError: this system permits none.
    """
    for left in Path("/run/netns").glob("apa-*"):  # by a process that was killed
        if not Path("/proc", left.name.split("-")[1]).exists():
            _ip("netns", "delete", left.name)
    names = [f"apa-{os.getpid()}-{number}" for number in range(2)]
    machines = Machines(names)
    try:
        for name in names:
            _ip("netns", "add", name)
        _ip("link", "add", CABLE, "netns", names[0], "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for number, name in enumerate(names):
            _ip("-n", name, "addr", "add", f"{ADDRESS.format(number + 1)}/24", "dev", CABLE)
            for device in ("lo", CABLE):
                _ip("-n", name, "link", "set", device, "up")
        yield machines
    finally:
        for number, name in enumerate(names):
            with contextlib.suppress(OSError):
                machines.kill(number)
                _ip("netns", "delete", name)


def _ip(*arguments: str) -> str:
    if (program := shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")) is None:
        raise OSError("there is no ip(8)")
    done = subprocess.run([program, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(done.stderr.strip())
    return done.stdout
