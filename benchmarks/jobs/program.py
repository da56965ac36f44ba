"""A whole program from its start to its end, as a user types it: ``arguments`` follow ``python``. ``{out}`` is a new folder."""

import subprocess
import sys
import tempfile
from pathlib import Path

from serve import serve, settings

given = settings()


def unit() -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = [argument.replace("{out}", str(Path(folder, "out"))) for argument in given["arguments"]]
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=given.get("cwd"))


serve(unit)
