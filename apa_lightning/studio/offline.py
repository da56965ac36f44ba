"""A gate in front of gradio's server: browsers may give files, but no addresses, which the server would fetch."""

import json
import re
from collections.abc import Iterator
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: Largest request (bytes) that is not an upload: texts and settings.
LARGEST = 2**20
ADDRESS = re.compile(r"\s*https?:", re.IGNORECASE)
UPLOAD = "/gradio_api/upload"


class Offline:
    """Refuses requests that name an address where gradio expects a file, and ones with more than :data:`LARGEST` bytes.

    Args:
        app: Gradio's server.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as ASGI has it."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http" or (scope["method"] == "POST" and path == UPLOAD):
            return await self.app(scope, receive, send)
        problem = None
        if any(ADDRESS.match(rest) for rest in re.split("(?:file|proxy)=", path)[1:]):
            problem = PlainTextResponse("The studio does not fetch addresses.", 403)
        elif scope["method"] not in ("GET", "HEAD"):
            body = b""
            async for part in Request(scope, receive).stream():
                body += part
                if len(body) > LARGEST:
                    problem = PlainTextResponse(f"The request has more than {LARGEST} bytes.", 413)
                    break
            else:
                if any(ADDRESS.match(file) for file in _paths(_content(body))):
                    problem = PlainTextResponse("Upload the recording: the studio does not fetch addresses.", 403)
                receive = _again(body, receive)
        await (problem or self.app)(scope, receive, send)


def _content(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None  # a login's form; gradio reads nothing else but JSON


def _paths(content: Any) -> Iterator[str]:
    """What stands for files in the content of a request."""
    parts = [content]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += part.values()
            if isinstance(file := part.get("path"), str):
                yield file
        elif isinstance(part, list):
            parts += part


def _again(body: bytes, receive: Receive) -> Receive:
    """The request's body once more, then what else comes."""
    rest = iter([{"type": "http.request", "body": body}])

    async def next_message() -> Message:
        return next(rest, None) or await receive()

    return next_message
