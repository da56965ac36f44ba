"""A gate in front of gradio's server: browsers may give files as long as there is room, but no addresses to fetch."""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any

from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from apa_lightning.errors import InputError
from apa_lightning.studio.sessions import Sessions

#: Largest request (bytes) that is not an upload: texts and settings.
LARGEST = 2**20
ADDRESS = re.compile(r"\s*https?:", re.IGNORECASE)
UPLOAD = "/gradio_api/upload"
#: Bytes of an upload after which the room in the folder is looked at again.
PIECE = 2**24


class Gate:
    """Refuses requests that name an address where gradio expects a file, and too much data.

    A request that is not an upload may have :data:`LARGEST` bytes, an upload those of one file, and only while there is room.

    Args:
        app: Gradio's server.
        sessions: Whose limits hold.
    """

    def __init__(self, app: ASGIApp, sessions: Sessions):
        self.app, self.sessions = app, sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request as ASGI has it."""
        path = str(scope.get("path", ""))
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        if scope["method"] == "POST" and path == UPLOAD:
            return await self.app(scope, _while_there_is_room(receive, self.sessions), send)
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


def _while_there_is_room(receive: Receive, sessions: Sessions) -> Receive:
    """The messages of an upload; gradio answers the exception's text, and removes what it has received."""
    most = sessions.max_megabytes * 2**20 + LARGEST
    received = next_look = 0

    async def next_message() -> Message:
        nonlocal received, next_look
        if received >= next_look:
            next_look += PIECE
            try:
                await asyncio.to_thread(sessions.check_room)
            except InputError as error:
                raise MultiPartException(str(error)) from None
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise MultiPartException(f"The maximum allowed size of an upload is {sessions.max_megabytes} MB.")
        return message

    return next_message


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
