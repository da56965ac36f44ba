"""Servers that behave badly, and the command that streams from them."""

import itertools
import time
from pathlib import Path

from damages import command
from processes import Command
from shard_tools import Quiet

from datamodules import remote


class Bad(Quiet):
    """A server that behaves badly with the first shard."""

    asked = itertools.count()

    def __init__(self, *arguments, fault: str, **options):
        self.fault = fault
        super().__init__(*arguments, **options)

    def do_GET(self) -> None:
        bad = self.path.endswith("train-000000.tar")
        if bad and self.fault == "refuses":
            self.send_error(403)
        elif bad and self.fault == "sends a page":
            self.answer(b"<html>Please log in</html>", 0)
        elif bad and self.fault == "hangs up":
            data = Path(self.directory, "train-000000.tar").read_bytes()
            self.answer(data[: len(data) // 2], len(data) // 2)
        elif bad and self.fault == "goes silent":
            data = Path(self.directory, "train-000000.tar").read_bytes()
            self.answer(data[: len(data) // 2], len(data) // 2)
            time.sleep(300)
        elif bad and self.fault == "is busy twice" and next(self.asked) < 2:
            self.send_error(503)
        else:
            super().do_GET()

    def answer(self, data: bytes, missing: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) + missing))
        self.end_headers()
        self.wfile.write(data)


def impatient() -> None:
    """Do not wait as long for a bad server as one would wait in earnest."""
    remote.SILENCE, remote.PAUSE = 2.0, 0.1


def stream(kind: str, folder: Path, url: str, *more: object, share: float = 1) -> Command:
    names = ",".join(f"{url}/train-00000{number}.tar" for number in range(2))
    split = {"fit": "train", "validate": "validation"}[kind]
    per_epoch = ["--data.samples_per_epoch=24"] if kind == "fit" else []
    return command(kind, folder, f"--data.{split}_shards=[{names}]", *per_epoch, *more, share=share, before=impatient)
