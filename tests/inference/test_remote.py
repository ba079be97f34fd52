"""A chat with a server elsewhere, whatever it answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tinygrad_chat.errors import TinygradChatError, UsageError
from tinygrad_chat.inference import remote
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.remote import RemoteChat, RemoteServer


class Stub:
    """A server of somebody's: it answers with these bytes, and `asked` has what it was asked."""

    def __init__(self, answer: bytes, *, status: int = 200, models: bytes = b'{"data": [{"id": "m"}]}') -> None:
        self.asked: list[Any] = []
        self.waits = threading.Event()
        self.waits.set()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._send(200, models)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                stub.asked.append((self.path, self.headers["Authorization"], json.loads(body)))
                self._send(status, answer)
                stub.waits.wait(30)

            def _send(self, code: int, content: bytes) -> None:
                self.send_response(code)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def running(self) -> Iterator[Stub]:
        threading.Thread(target=self._server.serve_forever, daemon=True, args=[0.01]).start()
        try:
            yield self
        finally:
            self.waits.set()
            self._server.shutdown()
            self._server.server_close()


def stream(*deltas: Any, reason: str = "stop") -> bytes:
    """Return an answer's events."""
    choices: Sequence[Any] = [{"delta": delta} for delta in deltas] + [{"delta": {}, "finish_reason": reason}]
    events = [json.dumps({"choices": [choice], "x": 1}) for choice in choices]
    return "".join(f": a comment\n\ndata: {event}\n\n" for event in [*events, "[DONE]"]).encode()


def said(chat: RemoteChat, text: str) -> str:
    return "".join(step.text for step in chat.reply(text) if step.kind == "text")


def chat_with(stub: Stub, **options: Any) -> RemoteChat:
    server = RemoteServer(stub.url, "key")
    return RemoteChat(server, server.first_model(), options=GenerationOptions(**options))


def test_an_answer_comes_in_pieces_and_is_a_part_of_what_is_asked_next():
    with Stub(stream({"role": "assistant", "content": None}, {"content": "Hel"}, {"content": "lo"})).running() as stub:
        chat = chat_with(stub, temperature=0.5, stop=("x",), top_k=3, seed=7)
        assert [said(chat, "a"), said(chat, "b")] == ["Hello", "Hello"]
        assert chat.request is not None
        assert chat.request.finish_reason == "stop"
        (path, key, first), (_, _, second) = stub.asked
    assert (path, key) == ("/v1/chat/completions", "Bearer key")
    wanted = {"model": "m", "stream": True, "temperature": 0.5, "stop": ["x"], "top_k": 3, "seed": 7, "max_tokens": 500}
    assert first == {**wanted, "messages": [{"role": "user", "content": "a"}]}
    assert second["seed"] == 8
    assert [each["content"] for each in second["messages"]] == ["a", "Hello", "b"]


def test_a_question_is_asked_anew_and_changed():
    with Stub(stream({"content": "yes"})).running() as stub:
        chat = chat_with(stub)
        said(chat, "a")
        list(chat.retry())
        list(chat.edit("b"))
        assert [[each["content"] for each in body["messages"]] for _, _, body in stub.asked] == [["a"], ["a"], ["b"]]
        with pytest.raises(UsageError, match="does not report tokens"):
            chat.token_count  # noqa: B018


def test_of_several_answers_the_first_is_the_answer():
    two = b'data: {"choices": [{"delta": {"content": "a"}}, {"delta": {"content": "b"}}]}\n\n'
    with Stub(two + stream({"content": "c"})).running() as stub:
        assert said(chat_with(stub), "x") == "ac"


def test_calls_of_our_calculator_are_kept_as_parts():
    parts = [{"part": {"type": "python", "text": "2+3"}}, {"part": {"type": "python_output", "text": "5"}}]
    with Stub(stream(*parts, {"content": "5."})).running() as stub:
        chat = chat_with(stub)
        assert said(chat, "2+3?") == "5."
    assert chat.conversation is not None
    assert [part.kind for part in chat.conversation.messages[1].parts] == ["python", "python_output", "text"]


def test_an_answer_that_does_not_come_can_be_stopped():
    begun = stream({"content": "Hel"}).split(b"data: [DONE]")[0].rsplit(b"data:", 1)[0]
    with Stub(begun).running() as stub:
        stub.waits.clear()
        chat = chat_with(stub)
        for step in chat.reply("a"):
            if not step.text:  # nothing has come for a while
                assert chat.request is not None
                chat.request.cancel()
        assert chat.conversation is not None
        assert chat.conversation.messages[1].text == "Hel"
        for thread in threading.enumerate():
            if thread.name == "reading":
                thread.join(20)
                assert not thread.is_alive()  # nobody reads any more, though the server goes on


REFUSALS = [
    (400, b'{"error": {"message": "too\\nlong", "type": "x"}}', "too long"),
    (401, b'{"error": "no key"}', "no key"),
    (422, b'{"detail": "missing"}', "missing"),
    (502, b"<html>", "refused with status 502"),
    (301, b"", "refused with status 301"),
    (200, b'data: {"error": {"message": "no memory"}}\n\n', "no memory"),
    (200, b"", "cut off"),
    (200, b"data: {", "not valid JSON"),
    (200, b'data: {"choices": [{"delta": {"content": 3}}]}\n\n', "content: expected"),
    (200, b"data: " + b"[" * 100_000, "nested too deep"),
    (200, b"data: " + b"x" * (2 << 20), "not valid JSON"),
]


@pytest.mark.parametrize(("status", "answer", "told"), REFUSALS)
def test_whatever_else_comes_is_told_in_one_line(status: int, answer: bytes, told: str):
    with Stub(answer, status=status).running() as stub:
        chat = chat_with(stub)
        with pytest.raises(TinygradChatError, match=told) as refused:
            said(chat, "a")
        assert "\n" not in str(refused.value)
        assert chat.conversation is None


def test_what_has_no_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "MAX_BYTES", 1000)
    long = stream({"content": "x" * 2000})
    refused = json.dumps({"error": {"message": "no", "more": "x" * 2000}}).encode()
    for status, answer, told in ((200, long, "not valid JSON"), (400, refused, "refused with status 400")):
        with Stub(answer, status=status).running() as stub, pytest.raises(TinygradChatError, match=told):
            said(chat_with(stub), "a")
    models = json.dumps({"data": [{"id": "x" * 2000}]}).encode()
    with Stub(b"", models=models).running() as stub, pytest.raises(TinygradChatError, match="not valid JSON"):
        chat_with(stub)


def test_nothing_is_sent_in_the_open_where_the_url_says_https():
    with Stub(b"").running() as stub:
        server = RemoteServer(stub.url.replace("http:", "https:"), "key")
        with pytest.raises(UsageError, match="is the server running"):
            server.first_model()


@pytest.mark.parametrize("models", [b"", b"{}", b'{"data": []}', b'{"data": [{"id": 3}]}'])
def test_a_server_without_a_model_is_told(models: bytes):
    with Stub(b"", models=models).running() as stub, pytest.raises(TinygradChatError):
        chat_with(stub)


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://a", "http://", "http://a:port", "http://a:99999", "http://a\n", "http://ä"]
)
def test_what_is_no_url_is_refused(url: str):
    with pytest.raises(UsageError, match="--url"):
        RemoteServer(url)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_the_end_of_a_url_may_be_left_out(path: str):
    assert RemoteServer(f"http://a:1{path}").url == "http://a:1/v1"
    assert RemoteServer("https://user:secret@a/api").url == "https://a/api"


def test_nobody_there_is_told():
    with Stub(b"").running() as stub:
        server = RemoteServer(stub.url)
    with pytest.raises(UsageError, match="is the server running"):
        server.first_model()


def test_a_server_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "TIMEOUT", 0.2)
    with Stub(b": begun\n\n").running() as stub:
        stub.waits.clear()
        with pytest.raises(UsageError, match="timed out"):
            said(chat_with(stub), "a")
