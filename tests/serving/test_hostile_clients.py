"""Clients that leave, that are slow, that send too much or nothing at all: the others do not notice."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.serving.talking import (
    HOST,
    Answer,
    ask,
    ask_bytes,
    connect,
    events,
    eventually,
    read_answer,
    read_until,
    request,
)

pytest.importorskip("starlette", reason="starlette, of the extra serve, is not installed")
from tests.serving.threads import ServerThread, server_thread
from tinygrad_chat.serving.connection import STALL_SECONDS, Connection
from tinygrad_chat.serving.server import PROBES, listen

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "hi"}]
SHORT: dict[str, Any] = {"messages": HI, "max_tokens": 3, "temperature": 0}
LONG = {**SHORT, "max_tokens": 3000}
KINDS = pytest.mark.parametrize("stream", [False, True], ids=["at once", "stream"])


@pytest.fixture
def server() -> Iterator[ServerThread]:
    with server_thread() as started:
        yield started


@pytest.fixture
def narrow() -> Iterator[ServerThread]:
    """A server that writes one answer at a time, and lets one wait."""
    with server_thread(rows=1, max_queue=1) as started:
        yield started


def ask_and_leave(server: ServerThread, body: Any, *, after: bytes = b"") -> None:
    with connect(server.port) as client:
        client.sendall(request(server.port, CHAT, body))
        if after:
            read_until(client, after)
        else:
            eventually(lambda: server.open_answers > 0)


@KINDS
def test_who_leaves_while_it_is_read_frees_the_place(server: ServerThread, stream: bool):
    server.model.may_go_on.clear()
    with connect(server.port) as client:
        client.sendall(request(server.port, CHAT, {**LONG, "stream": stream}))
        assert server.model.is_asked.wait(30)
    server.model.may_go_on.set()
    eventually(lambda: server.open_answers == 0)
    assert server.model.tokens_read < 1000


@KINDS
def test_who_leaves_while_it_waits_is_never_answered(narrow: ServerThread, stream: bool):
    narrow.model.may_go_on.clear()
    with connect(narrow.port) as first:
        first.sendall(request(narrow.port, CHAT, {**SHORT, "stream": True}))
        assert narrow.model.is_asked.wait(30)
        with connect(narrow.port) as second:
            second.sendall(request(narrow.port, CHAT, {**LONG, "stream": stream}))
            eventually(lambda: narrow.open_answers == 2)
        eventually(lambda: narrow.open_answers == 1)
        narrow.model.may_go_on.set()
        assert len(events(read_answer(first).body)) >= 3
    eventually(lambda: narrow.open_answers == 0)
    assert narrow.model.tokens_read == 3


def test_who_leaves_in_the_middle_of_a_stream_frees_the_place(server: ServerThread):
    server.model.pace = 0.001
    ask_and_leave(server, {**LONG, "stream": True}, after=b'"content":"0')
    eventually(lambda: server.open_answers == 0)
    assert server.model.tokens_read < 1000


def test_a_full_queue_is_429(narrow: ServerThread):
    narrow.model.may_go_on.clear()
    with connect(narrow.port) as first, connect(narrow.port) as second:
        for count, client in enumerate((first, second), start=1):
            client.sendall(request(narrow.port, CHAT, SHORT))
            eventually(lambda count=count: narrow.open_answers == count)
        refused = ask(narrow.port, CHAT, SHORT)
        assert (refused.status, refused.error["type"]) == (429, "rate_limit_error")
        assert int(refused.headers["retry-after"]) >= 1
        assert ask(narrow.port, "/health").status == 200
        narrow.model.may_go_on.set()
        assert [read_answer(client).status for client in (first, second)] == [200, 200]


@KINDS
def test_time_has_a_limit(stream: bool):
    with server_thread(timeout=0.2) as server:
        server.model.pace = 0.01
        answer = ask(server.port, CHAT, {**LONG, "stream": stream})
        if stream:
            assert answer.status == 200
            assert b'data: {"error":' in answer.body
        else:
            assert answer.status in (408, 504)
            assert "--timeout" in answer.error["message"]
        eventually(lambda: server.open_answers == 0)


@pytest.mark.profile("ci")
def test_a_slow_reader_delays_nobody_and_is_left_after_a_while(server: ServerThread, monkeypatch: pytest.MonkeyPatch):
    """It reads nothing, and there is more than the system keeps for it."""
    monkeypatch.setattr("tinygrad_chat.serving.connection.STALL_SECONDS", 0.5)
    with reading_nothing(server, {**WORDY, "stream": True}):
        eventually(lambda: server.open_answers > 0)
        assert [ask(server.port, CHAT, SHORT).status for _ in range(5)] == [200] * 5
        eventually(lambda: server.open_answers == 0)
        eventually(lambda: server.connections == 0)


WORDY: dict[str, Any] = {**SHORT, "max_tokens": 300, "logprobs": True, "top_logprobs": 20}


@contextmanager
def reading_nothing(server: ServerThread, body: Any) -> Iterator[socket.socket]:
    """Ask, and read nothing of the answer; the system keeps little of it."""
    server.keep_little_unsent()
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        slow.connect((HOST, server.port))
        slow.sendall(request(server.port, CHAT, body))
        eventually(lambda: server.connections > 0)
        yield slow


@pytest.mark.profile("ci")
@pytest.mark.parametrize("tokens", [300, 40], ids=["long", "short"])
def test_an_answer_that_nobody_reads_holds_no_connection(
    server: ServerThread, monkeypatch: pytest.MonkeyPatch, tokens: int
):
    """The answer is over, and the system cannot take the rest of it."""
    monkeypatch.setattr("tinygrad_chat.serving.connection.STALL_SECONDS", 0.2)
    with reading_nothing(server, {**WORDY, "max_tokens": tokens}):
        eventually(lambda: server.connections == 0)
        assert server.open_answers == 0


def test_who_reads_slowly_is_waited_for_while_something_is_read():
    unsent, waits, ended = iter([9, 5, 5, 5]), [], []  # one of these at each look, and one to begin anew
    connection = Connection.__new__(Connection)
    loop = SimpleNamespace(call_later=lambda *call: waits.append(call))
    transport = SimpleNamespace(get_write_buffer_size=lambda: next(unsent), abort=lambda: ended.append("aborted"))
    vars(connection).update(loop=loop, transport=transport, flow=SimpleNamespace(pause_writing=lambda: None))
    connection.pause_writing()
    for _ in range(2):
        assert ended == []
        seconds, look, *given = waits.pop()
        assert seconds == STALL_SECONDS
        look(*given)
    assert ended == ["aborted"]


BEGINNINGS = {
    "nothing": b"",
    "half a head": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    "half of a second one": b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /health HTTP/1.1\r\n",
    "a body that nobody reads": b"POST /health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999\r\n\r\nx",
}


@pytest.mark.parametrize(
    ("beginning", "dribbles"), [("nothing", False), ("half a head", False), *((each, True) for each in BEGINNINGS)]
)
def test_a_request_that_never_becomes_one_is_waited_for_so_long(
    server: ServerThread, monkeypatch: pytest.MonkeyPatch, beginning: str, dribbles: bool
):
    monkeypatch.setattr("tinygrad_chat.serving.connection.HEAD_SECONDS", 0.2)
    with connect(server.port) as client:
        client.sendall(BEGINNINGS[beginning])
        client.settimeout(0.01)

        def is_closed() -> bool:
            try:
                if dribbles:
                    client.sendall(b"x")
                return client.recv(1 << 16) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        eventually(is_closed)
    eventually(lambda: server.connections == 0)


def test_the_system_asks_whether_a_silent_client_is_still_there():
    with listen(HOST, 0) as listening, connect(listening.getsockname()[1]):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            known = {name: seconds for name, seconds in PROBES.items() if hasattr(socket, name)}
            assert {name: accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in known} == known


def test_half_a_request_holds_nothing(server: ServerThread):
    whole = request(server.port, CHAT, SHORT)
    clients = [connect(server.port) for _ in range(60)]
    for number, client in enumerate(clients):
        client.sendall([b"", whole[:20], whole[:-10]][number % 3])
    assert [ask(server.port, CHAT, SHORT).status for _ in range(5)] == [200] * 5
    assert server.open_answers == 0
    for client in clients:
        client.close()


def test_a_body_that_never_comes_is_waited_for_so_long(server: ServerThread, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tinygrad_chat.serving.limits.BODY_SECONDS", 0.2)
    with connect(server.port) as client:
        client.sendall(request(server.port, CHAT, SHORT)[:-10])
        assert read_answer(client).status == 408


MEBIBYTE = b"x" * (1 << 20)


@pytest.mark.parametrize("kind", ["by its length", "in chunks"])
def test_a_body_of_100_megabytes_is_413_before_it_is_read(server: ServerThread, kind: str):
    before = psutil.Process().memory_info().rss
    head = request(server.port, CHAT, b"", Content_Length=str(100 << 20))
    piece = MEBIBYTE
    if kind == "in chunks":
        head = head.replace(f"Content-Length: {100 << 20}".encode(), b"Transfer-Encoding: chunked")
        piece = f"{len(MEBIBYTE):x}\r\n".encode() + MEBIBYTE + b"\r\n"
    sent, answer = send_all_it_takes(server.port, head, piece, 100)
    assert answer.status == 413
    assert answer.error["type"] == "invalid_request_error"
    assert sent < 50
    assert psutil.Process().memory_info().rss - before < 40 << 20


def send_all_it_takes(port: int, head: bytes, piece: bytes, count: int) -> tuple[int, Answer]:
    """Send a piece as often as the server takes it; return how often it did, and its answer."""
    with connect(port) as client:
        client.sendall(head)
        sent = 0
        try:
            for _ in range(count):
                client.sendall(piece)
                sent += 1
        except OSError:
            pass
        return sent, read_answer(client)


def test_headers_of_a_megabyte_are_refused(server: ServerThread):
    answer = ask_bytes(server.port, request(server.port, "/health", X="x" * (1 << 20)))
    assert answer.status in (400, 431)
    assert ask(server.port, "/health").status == 200


@pytest.mark.parametrize(
    "content", [b"\x00" * 100, b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9\r\n\r\n"]
)
def test_what_is_no_http_is_refused(server: ServerThread, content: bytes):
    with connect(server.port) as client:
        client.sendall(content)
        client.shutdown(socket.SHUT_WR)
        assert read_answer(client, b"HTTP/1.1 400 nothing came\r\n\r\n").status == 400
    assert ask(server.port, "/health").status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.", "[", "a b"]
)
@pytest.mark.parametrize("path", ["/", "/v1/models", "/metrics", "/static/chat.css"])
def test_a_page_elsewhere_cannot_ask_by_a_name_of_its_own(server: ServerThread, host: str, path: str):
    """DNS rebinding: a name that a stranger owns may lead to this machine."""
    assert ask(server.port, path, Host=host).status in (400, 403, 421)


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"])
def test_this_machine_s_names_are_its_own(server: ServerThread, name: str):
    assert ask(server.port, "/health", Host=f"{name}:{server.port}").status == 200


def test_no_other_page_may_ask(server: ServerThread):
    evil = "http://evil.example"
    preflight = request(server.port, CHAT, Origin=evil, Access_Control_Request_Method="POST")
    answers = [
        ask_bytes(server.port, preflight.replace(b"GET", b"OPTIONS", 1)),
        ask(server.port, "/v1/models", Origin=evil),
        ask(server.port, CHAT, SHORT, Origin=evil),
        ask(server.port, CHAT, SHORT, Origin=evil, Content_Type="text/plain"),
        ask(server.port, CHAT, SHORT, Origin="null"),
    ]
    assert not any("access-control-allow-origin" in answer.headers for answer in answers)
    assert [answer.status for answer in answers[2:]] == [403] * 3
    assert server.model.tokens_read == 0


@pytest.mark.parametrize(
    "given", [None, "Bearer wrong", "Bearer ", "right", "Basic right", "Bearer righ", "Bearer rightt"]
)
def test_a_wrong_key_is_401(given: str | None):
    headers = {} if given is None else {"Authorization": given}
    with server_thread(api_key="right") as server:
        for path, body in (("/v1/models", None), (CHAT, SHORT), ("/tokenize", {"prompt": "a"}), ("/metrics", None)):
            answer = ask(server.port, path, body, **headers)
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert ask(server.port, "/v1/models", Authorization="Bearer right").status == 200
        assert server.model.tokens_read == 0


def test_keys_are_compared_in_a_time_that_tells_nothing(monkeypatch: pytest.MonkeyPatch):
    compared: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr("hmac.compare_digest", lambda *keys: compared.append(keys) or keys[0] == keys[1])
    with server_thread(api_key="right") as server:
        ask(server.port, "/v1/models", Authorization="Bearer wrong")
    assert compared == [(b"wrong", b"right")]


@pytest.mark.profile("ci")
def test_nothing_is_left_of_many_requests(server: ServerThread):
    bodies = [SHORT, {**SHORT, "stream": True}, {**SHORT, "temperature": "hot"}, b"{", {"messages": []}]

    def ask_all() -> None:
        for body in bodies:
            ask(server.port, CHAT, body)

    def ask_at_once() -> None:
        clients = [threading.Thread(target=ask_all) for _ in range(20)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        eventually(lambda: server.open_answers == 0)

    process = psutil.Process()

    def held() -> tuple[int, int]:
        return threading.active_count(), process.num_fds() if psutil.POSIX else 0

    def leave_nothing() -> bool:
        before = held()
        ask_at_once()
        ends = time.monotonic() + 2
        while left := any(after > most for after, most in zip(held(), before, strict=True)):
            if time.monotonic() > ends:
                break
            time.sleep(0.02)
        return not left

    ask_at_once()  # the first requests start threads that stay, to read requests; on a busy machine more come later
    assert any(leave_nothing() for _ in range(10))
