"""A studio with tiny parts."""

import gc
import socket
from collections.abc import Iterator

import pytest
from random_folders import tiny_parts

from apa_lightning.editing.editor import AudioEditor
from apa_lightning.studio.jobs import Jobs
from apa_lightning.studio.sessions import Sessions


@pytest.fixture(scope="session")
def editor() -> AudioEditor:
    return AudioEditor.from_pretrained(**tiny_parts())


@pytest.fixture
def jobs(editor) -> Iterator[Jobs]:
    jobs = Jobs(editor)
    yield jobs
    jobs.close()


@pytest.fixture
def sessions(tmp_path) -> Sessions:
    return Sessions(tmp_path.resolve() / "studio", max_seconds=10, max_megabytes=1)


@pytest.fixture
def page(editor, jobs, sessions, tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    from apa_lightning.studio.page import Page
    from apa_lightning.studio.service import Studio

    return Page(Studio(editor, sessions, jobs, {}))


@pytest.fixture
def address(page, sessions) -> Iterator[str]:
    """The page, served."""
    from apa_lightning.studio.server import serve

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve(page.blocks, sessions, "127.0.0.1", port)
    yield f"http://127.0.0.1:{port}"
    page.blocks.close()
    gc.collect()  # gradio leaves event loops and sockets open: their warnings shall belong to this test, which ignores them
