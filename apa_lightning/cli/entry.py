"""Entry point of the command line, which names the extra to install where a dependency is missing."""

import sys

from apa_lightning.cli.overview import overview

#: The extra of setup.cfg that installs a module. Dependencies of the editor are always installed.
EXTRAS = {
    "lightning": "train",
    "jsonargparse": "train",
    "omegaconf": "train",
    "webdataset": "train",
    "braceexpand": "train",
    "torchmetrics": "train",
    "tensorboard": "train",
    "matplotlib": "train",
    "requests": "train",
    "urllib3": "train",
    "mir_eval": "train",
    "jinja2": "evaluate",
    "sklearn": "evaluate",
    "gradio": "studio",
}


def main() -> None:
    """Run the process's command line."""
    if sys.argv[1:] in (["--help"], ["-h"]):
        print(overview())
        return
    try:
        from apa_lightning.cli.main import main as run

        run()
    except ModuleNotFoundError as error:
        module = (error.name or "").split(".")[0]
        if module not in EXTRAS:
            raise
        print(
            f"error: this command needs {module}; install it with: pip install 'apa_lightning[{EXTRAS[module]}]'",
            file=sys.stderr,
        )
        sys.exit(2)
