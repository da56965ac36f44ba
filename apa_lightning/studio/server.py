"""The server of the page, which asks nothing of other hosts."""

from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from apa_lightning.studio.gate import Gate
from apa_lightning.studio.sessions import Sessions

STATIC = Path(__file__).parent / "static"


def serve(
    page: gr.Blocks, sessions: Sessions, host: str, port: int, auth: Any = None, open_browser: bool = False
) -> None:
    """Start the server of the page in a thread.

    Args:
        page: The page.
        sessions: Their files are what browsers may get, and their limits those of uploads.
        host: Address to listen at.
        port: Port to listen at.
        auth: Check of user and password; None lets everybody in.
        open_browser: Open the page in the browser of this machine.

    Raises:
        OSError: If the port is in use.
    """
    page.queue(api_open=False, max_size=200)
    # Fonts of the system: gradio's own themes name fonts that come from the network.
    theme = gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"], primary_hue="indigo"
    )
    page.launch(
        server_name=host,
        server_port=port,
        auth=auth,
        allowed_paths=[str(sessions.folder)],
        max_file_size=f"{sessions.max_megabytes}mb",
        inbrowser=open_browser,
        theme=theme,
        css=(STATIC / "style.css").read_text(encoding="utf-8"),
        app_kwargs={"middleware": [Middleware(Gate, sessions)]},
        footer_links=[],
        run_history=False,
        share=False,
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
    )
