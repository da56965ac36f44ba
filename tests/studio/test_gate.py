"""The studio's server fetches nothing for its visitors, and takes uploads only while there is room."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.slow,  # gradio takes seconds to load
    pytest.mark.filterwarnings("ignore"),  # it leaves event loops open
]


@pytest.fixture
def elsewhere(monkeypatch) -> Iterator[tuple[str, list[str]]]:
    """Another server, which gradio takes for one of the internet, and the paths that were asked of it."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *line: object) -> None:
            pass

    monkeypatch.setattr("safehttpx.is_public_ip", lambda ip: True)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def answer(url: str, content: object = None) -> int:
    """The status of a GET, or of a POST with JSON."""
    body = None if content is None else json.dumps(content).encode()
    try:
        with urlopen(Request(url, body, {"Content-Type": "application/json"}), timeout=30) as response:
            return response.status
    except HTTPError as error:
        return error.code


def test_an_address_in_the_place_of_a_file_is_refused(address, elsewhere):
    url, asked = elsewhere
    assert answer(f"{address}/gradio_api/file={url}/song.wav") == 403
    with urlopen(f"{address}/config") as response:
        events = {one["api_name"]: one["id"] for one in json.load(response)["dependencies"]}
    for event, data in (
        ("accepted", lambda file: ["0" * 32, file]),
        ("opened", lambda file: ["0" * 32, {"region": file}]),
    ):
        for path, status in ((f"{url}/song.wav", 403), ("song.wav", 200)):
            file = {"path": path, "meta": {"_type": "gradio.FileData"}}
            call = {"data": data(file), "fn_index": events[event], "session_hash": "tests"}
            assert answer(f"{address}/gradio_api/queue/join", call) == status
    assert answer(f"{address}/gradio_api/queue/join", {"data": ["x" * 2**21]}) == 413
    assert not asked


def upload(address: str, *sizes: int) -> tuple[int, str]:
    """Status and text of an upload of files with so many bytes."""
    part = b'--end\r\nContent-Disposition: form-data; name="files"; filename="song.wav"\r\n\r\n%b\r\n'
    body = b"".join(part % os.urandom(size) for size in sizes) + b"--end--\r\n"
    request = Request(f"{address}/gradio_api/upload", body, {"Content-Type": "multipart/form-data; boundary=end"})
    try:
        with urlopen(request, timeout=30) as response:
            return response.status, response.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def test_uploads_have_a_limit_of_size_and_of_room(address, sessions, tmp_path, monkeypatch):
    def kept() -> list[int]:
        return [path.stat().st_size for path in (tmp_path / "uploads").rglob("*") if path.is_file()]

    assert upload(address, 1000)[0] == 200
    assert kept() == [1000]
    for sizes in ((2**20 + 1,), (2**19,) * 6):
        status, message = upload(address, *sizes)
        assert status == 413 and "maximum allowed size" in message
    (sessions.folder / "edit.wav").write_bytes(bytes(20_000))
    sessions.max_gigabytes = 1e-5  # 10 kB
    status, message = upload(address, 1000)
    assert status == 400 and message.startswith("The studio is full")
    # It becomes full while an upload arrives.
    sessions.max_gigabytes = 2e-5 + 1e-9
    monkeypatch.setattr("apa_lightning.studio.gate.PIECE", 1000)
    looked = []

    def fill() -> None:
        looked.append(None)
        (sessions.folder / "edit.wav").write_bytes(bytes(20_000 + len(looked) - 1))
        check()

    check = sessions.check_room
    monkeypatch.setattr(sessions, "check_room", fill)
    status, message = upload(address, 2**19)
    assert status == 400 and message.startswith("The studio is full") and len(looked) > 1
    assert kept() == [1000]
