"""The command ``studio``: loads the editor and serves the page."""

import hmac
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from torch.nn import Module

from apa_lightning.backbones.base import Backbone
from apa_lightning.backbones.vocoding import Vocoder
from apa_lightning.conditioning.base import AudioConditioner
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.errors import InputError
from apa_lightning.utils.pretrained import first_line

USER, SHORTEST = "studio", 8
THIS_MACHINE, EVERYWHERE = "127.0.0.1", "0.0.0.0"


def studio(
    backbone: str | Backbone = "embedded",
    adapter: str | None = "auto",
    audio_encoder: str | AudioConditioner = "embedded",
    vocoder: Vocoder | None = None,
    edit_defaults: str | None = None,
    device: str = "cpu",
    output: Path = Path("studio"),
    port: int = 7860,
    public: bool = False,
    password_file: Path | None = None,
    max_megabytes: int = 100,
    max_seconds: float = 300.0,
    max_gigabytes: float = 20.0,
    max_waiting: int = 20,
    open_browser: bool = False,
) -> None:
    """Edit recordings in the browser: a page on this machine that needs no network.

    Args:
        backbone: `embedded`, a folder, or a hub id; or a class_path with init_args.
        adapter: Adapter file; `embedded`; null for an untrained one; `auto`: the embedded one with the embedded backbone.
        audio_encoder: `embedded`, an AudioMAE folder, weights file, or hub id; or a class_path with init_args.
        vocoder: `backbone`, `refined` or `griffin_lim`; null: what suits the backbone.
        edit_defaults: YAML file of defaults of the knobs, or `paper`; null: those of the backbone.
        device: Where the model runs: cpu, cuda, cuda:1.
        output: Folder of recordings and edits: one folder in it per browser.
        port: Port of the page.
        public: Let other machines in; needs a password.
        password_file: File that holds a password of 8 characters or more; the user's name is `studio`.
        max_megabytes: Largest file that is taken.
        max_seconds: Longest recording that is taken.
        max_gigabytes: Size of `output` from which on nothing more is taken.
        max_waiting: Most jobs of all browsers that may wait.
        open_browser: Open the page in the browser of this machine.
    """
    limits = {
        "max_megabytes": max_megabytes,
        "max_seconds": max_seconds,
        "max_gigabytes": max_gigabytes,
        "max_waiting": max_waiting,
    }
    for name, value in limits.items():
        if value <= 0:
            raise InputError(f"{name}: {value:g}; give a number above 0.")
    if not 1 <= port <= 65535:
        raise InputError(f"port: {port}; give 1 to 65535.")
    password = None if password_file is None else read_password(password_file)
    if public and password is None:
        raise InputError("public: others can use this machine then; give a `password_file` with a password too.")
    os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    from apa_lightning.studio.jobs import Jobs
    from apa_lightning.studio.page import Page
    from apa_lightning.studio.server import serve
    from apa_lightning.studio.service import Studio
    from apa_lightning.studio.sessions import Sessions

    editor = AudioEditor.from_pretrained(
        backbone,
        adapter,
        audio_encoder,
        device,
        vocoder=vocoder,
        edit_defaults=edit_defaults,
    )
    given = {
        "backbone": (backbone, "embedded"),
        "adapter": (adapter, "auto"),
        "audio_encoder": (audio_encoder, "embedded"),
        "vocoder": (vocoder, None),
        "edit_defaults": (edit_defaults, None),
    }
    parts = {
        name: f"<the studio's {type(value).__name__}>" if isinstance(value, Module) else value
        for name, (value, default) in given.items()
        if value != default
    }
    jobs, folder = Jobs(editor, max_waiting), output.expanduser().resolve()
    sessions = Sessions(folder, max_seconds, max_gigabytes, max_megabytes)
    uploads = tempfile.TemporaryDirectory(prefix="uploads-", dir=folder)
    os.environ["GRADIO_TEMP_DIR"] = uploads.name
    page = Page(Studio(editor, sessions, jobs, parts)).blocks
    auth = None if password is None else checked(password)
    try:
        serve(page, sessions, EVERYWHERE if public else THIS_MACHINE, port, auth, open_browser)
        print(
            f"The studio is at http://{THIS_MACHINE}:{port}; Ctrl+C ends it. Recordings and edits: {folder}", flush=True
        )
        page.block_thread()
    except OSError as error:
        raise InputError(f"port: {port} cannot be used ({first_line(error)}); give another one.") from None
    finally:
        jobs.close()
        page.close()
        uploads.cleanup()


def read_password(file: Path) -> str:
    """The password in a file.

    Raises:
        InputError: If there is no such file, or the password is short.
    """
    try:
        password = file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"password_file: {file} cannot be read ({first_line(error)}).") from None
    if len(password) < SHORTEST:
        raise InputError(
            f"password_file: the password in {file} is shorter than {SHORTEST} characters; take a longer one."
        )
    return password


def checked(password: str) -> Any:
    """Gradio's check of user and password, slow for a wrong one."""

    def check(user: str, given: str) -> bool:
        right = hmac.compare_digest(f"{user}\n{given}".encode(), f"{USER}\n{password}".encode())
        if not right:
            time.sleep(1)
        return right

    return check
