"""Files over http(s), whole or in ranges, with retries and without endless waiting."""

import functools
import os
import re
import time
from typing import IO

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

SILENCE = 60.0
"""Seconds after which a server that sends nothing has failed."""
BUSY = (408, 429, 500, 502, 503, 504)
"""Answers of a busy server; it is asked `TRIES` times in all, after pauses of 0, 2, 4, ... and at most 10 `PAUSE`s."""
TRIES, PAUSE = 12, 1.0
CONNECTIONS = 16
"""Requests that one process has open at a time, at most."""


class RefusedError(OSError):
    """The server answers, and does not give the file: the fault is the file's, and asking again does not help."""


class WholeOnlyError(Exception):
    """The server sends only whole files."""


def is_remote(url: str) -> bool:
    """Whether `url` is an http(s) URL."""
    return url.startswith(("http:", "https:"))


def open_stream(url: str) -> IO[bytes]:
    """Open a whole file.

    Raises:
        RefusedError: If the server does not give it.
        OSError: If the server cannot be reached, or stays busy.
    """
    return _get(url, {}).raw


def read_range(url: str, start: int, stop: int) -> tuple[bytes, int]:
    """Read the bytes from `start` to `stop`; a broken or truncated answer is asked for again.

    Returns:
        The bytes, which are fewer where the file ends before `stop`, and the size of the file.

    Raises:
        WholeOnlyError: If the server sends only whole files.
        RefusedError: If it does not give the file.
        OSError: If it cannot be reached, stays busy, or breaks off each time.
    """
    began = time.monotonic()
    for attempt in range(TRIES):
        if attempt:
            time.sleep(min(PAUSE * 2**attempt, 10 * PAUSE) if attempt > 1 else 0)
        try:
            return _read_range(url, start, stop)
        except (requests.ConnectionError, requests.Timeout, HTTPError) as error:
            if time.monotonic() - began > 3 * SILENCE or attempt == TRIES - 1:
                raise OSError(str(error)) from None
    raise AssertionError("unreachable")


def _read_range(url: str, start: int, stop: int) -> tuple[bytes, int]:
    # The bytes count as they are stored, so they must not be compressed on the way.
    asked = {"Range": f"bytes={start}-{max(start, stop - 1)}", "Accept-Encoding": "identity"}
    with _get(url, asked) as response:
        given = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", response.headers.get("Content-Range", ""))
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            return b"", int(given[3]) if given else start
        if response.status_code != requests.codes.partial_content or not given or given[1] is None:
            raise WholeOnlyError(f"its server does not answer range requests ({response.status_code})")
        first, last, size = (int(number) for number in given.groups())
        data = response.raw.read(last + 1 - first)
        if first != start or len(data) < min(stop, size) - start:
            raise HTTPError(
                f"the server sent {len(data)} bytes from {first} on, instead of {stop - start} from {start}"
            )
        return data[: stop - start], size


def _get(url: str, headers: dict[str, str]) -> requests.Response:
    try:
        response = _session(os.getpid(), TRIES, PAUSE).get(url, headers=headers, stream=True, timeout=SILENCE)
    except requests.ConnectionError as error:  # its own text is long and says little
        raise requests.ConnectionError(str(getattr(error.args[0], "reason", error) if error.args else error)) from None
    if response.status_code >= 400 and response.status_code != requests.codes.requested_range_not_satisfiable:
        response.close()
        raise RefusedError(f"{response.status_code} {response.reason} for url: {url}")
    return response


@functools.lru_cache(maxsize=1)
def _session(process: int, tries: int, pause: float) -> requests.Session:
    """The session of this process: a forked worker must not use its parent's connections."""
    # A broken connection is asked for again by read_range; a stream must not be, because it goes on where it was.
    retries = Retry(tries - 1, connect=0, read=0, status_forcelist=BUSY, backoff_factor=pause, backoff_max=10 * pause)
    session = requests.Session()
    for prefix in ("http://", "https://"):  # an answer may lead from one to the other
        session.mount(prefix, HTTPAdapter(pool_maxsize=CONNECTIONS, max_retries=retries))
    return session
