"""The embedded default backbone, built deterministically in the cache on first use.

Until the pocket backbone is trained its weights are random, so what it makes is noise; it exists so that every command
runs without a network. It is read by the same code as ``cvssp/audioldm2-large``, and nothing depends on its sizes.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import diffusers
import timm
import torch
import transformers

from apa_lightning.random_backbone import TINY, save_random_backbone

SEED = 0


def cache_folder() -> Path:
    """``$APA_CACHE``, else ``$XDG_CACHE_HOME/apa_lightning``, else ``~/.cache/apa_lightning``."""
    if folder := os.environ.get("APA_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "apa_lightning"


def embedded_backbone() -> Path:
    """The folder of the embedded backbone; built on first use (a second), by one rename, under a name that says of what."""
    made_of = repr((TINY, SEED, *(library.__version__ for library in (diffusers, transformers, timm, torch))))
    folder = cache_folder() / f"random-backbone-{hashlib.sha256(made_of.encode()).hexdigest()[:8]}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
        try:
            save_random_backbone(building, TINY, SEED)
            building.chmod(0o755)
            os.rename(building, folder)
        except OSError:
            if not folder.exists():  # otherwise another process was faster
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder
