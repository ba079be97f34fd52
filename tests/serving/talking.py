"""Talking to a server as no library would: whatever bytes, and as slowly or as briefly as a test likes."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

HOST = "127.0.0.1"
TIMEOUT = 60  # seconds: against hangs only


@dataclass(frozen=True)
class Answer:
    """A status, headers by their names in small letters, a body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Mapping[str, Any]:
        """The error object of OpenAI's API. Fails where it is none."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert "\n" not in error["message"]
        return error


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=TIMEOUT)


def request(port: int, path: str, body: Any = None, **headers: str) -> bytes:
    """Return a request's bytes: GET, or POST of a body, which is written as JSON unless it is bytes."""
    content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"Host": f"{HOST}:{port}", "Content-Type": "application/json", "Content-Length": str(len(content))}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{'GET' if body is None else 'POST'} {path} HTTP/1.1", *(f"{key}: {named[key]}" for key in named)]
    return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + content


def ask(port: int, path: str, body: Any = None, **headers: str) -> Answer:
    """Ask and wait for the whole answer."""
    return ask_bytes(port, request(port, path, body, **headers))


def ask_bytes(port: int, content: bytes) -> Answer:
    """Send these bytes, as many as the server takes, and read what it answers."""
    with connect(port) as connection:
        with contextlib.suppress(ConnectionError):  # it has read enough, and says so below
            connection.sendall(content)
        return read_answer(connection)


def read_answer(connection: socket.socket, received: bytes = b"") -> Answer:
    """Read an answer, of which the beginning may have been `received`, until the server closes the connection."""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(1 << 16):
            received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _unchunked(body)
    return Answer(int(status.split()[1]), headers, body)


def _unchunked(body: bytes) -> bytes:
    found = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        found, body = found + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return found


def read_until(connection: socket.socket, expected: bytes) -> bytes:
    """Read until these bytes have come."""
    received = b""
    while expected not in received:
        piece = connection.recv(1 << 16)
        assert piece, f"the connection has ended before {expected!r}: {received!r}"
        received += piece
    return received


def events(body: bytes) -> list[Any]:
    """Return what a stream's events say, without the last, which says only that it is over."""
    *said, last, rest = body.decode().split("\n\n")
    assert (last, rest) == ("data: [DONE]", "")
    return [json.loads(each.removeprefix("data: ")) for each in said]


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds: it must, sooner or later."""
    ends = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < ends, "it never came to be so"
        time.sleep(0.005)
