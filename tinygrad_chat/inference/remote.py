"""A conversation with a server of OpenAI's API: ours (`tgc serve`) or another. Standard library only."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from tinygrad_chat.errors import TinygradChatError, UsageError
from tinygrad_chat.formatting import as_clause, one_line
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.request import Steps, TokenStep
from tinygrad_chat.inference.turns import Turns
from tinygrad_chat.schema import OPTIONAL, parse_json
from tinygrad_chat.text.conversations import TEXT, Message, Part
from tinygrad_chat.text.conversations.conversation import USER

TIMEOUT = 600.0  # the timeout of connecting and reading, in seconds
POLL_EVERY = 0.1  # seconds between checks for a request to stop
MAX_BYTES = 1 << 20  # of a line of a stream, or of any other response


@dataclass(frozen=True, kw_only=True)
class _Piece:
    type: Literal["text", "python", "python_output"]
    text: str


@dataclass(frozen=True, kw_only=True)
class _Delta:
    content: str | None = field(default=None, metadata=OPTIONAL)
    part: _Piece | None = field(
        default=None, metadata=OPTIONAL
    )  # only from our server: a call of its calculator, or the result


@dataclass(frozen=True, kw_only=True)
class _Choice:
    delta: _Delta | None = field(default=None, metadata=OPTIONAL)
    finish_reason: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    choices: list[_Choice] | None = field(default=None, metadata=OPTIONAL)
    error: Any = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class _Model:
    id: str


@dataclass(frozen=True, kw_only=True)
class _Models:
    data: list[_Model]


class RemoteServer:
    """A server at a URL, which may end in `/v1` or not; `key` is sent to it. Raises UsageError for an invalid URL."""

    def __init__(self, url: str, key: str | None = None) -> None:
        parts = urllib.parse.urlsplit(url)
        try:
            self._where = parts.hostname or "", parts.port
        except ValueError:
            self._where = "", None
        if parts.scheme not in ("http", "https") or not self._where[0] or not url.isascii() or not url.isprintable():
            raise UsageError(f"--url: expected one such as http://localhost:8000, received {url!r:.200}")
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._path = parts.path.rstrip("/") or "/v1"
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._path}"

    def first_model(self) -> str:
        """Return the id of the server's first model. Raises UsageError if there is none, and as `ask` does."""
        with contextlib.closing(self._connection()) as connection, self.ask(connection, "/models", None) as response:
            content = response.read(MAX_BYTES)
        found = parse_json(content, _Models, source=f"{self.url}/models").data
        if not found:
            raise UsageError(f"{self.url}: has no model")
        return found[0].id

    def ask(self, connection: http.client.HTTPConnection, path: str, body: Any) -> http.client.HTTPResponse:
        """Return the response to a GET, or to a POST if there is a `body`. Raises UsageError if the server refuses or
        does not answer."""
        try:
            content = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", self._path + path, content, self._headers)
            response = connection.getresponse()
            if response.status == 200:
                return response
            with response:
                refusal = response.read(MAX_BYTES)
        except (OSError, http.client.HTTPException) as error:
            self._gone(error)
        raise UsageError(f"{self.url}: {_reason(refusal, response.status)}")

    def stream(self, answer: RemoteAnswer, body: Any) -> Iterator[_Chunk]:
        """Yield the chunks of a chat's answer as they come; while none comes, an empty one every POLL_EVERY seconds."""
        lines: queue.Queue[bytes | Exception] = queue.Queue()
        connections: list[socket.socket] = []

        def read() -> None:
            try:
                with contextlib.closing(self._connection()) as connection:
                    connection.connect()
                    connections.append(connection.sock)
                    with self.ask(connection, "/chat/completions", body) as response:
                        while line := response.readline(MAX_BYTES):
                            lines.put(line)
                lines.put(b"")
            except Exception as error:
                lines.put(error)

        threading.Thread(target=read, name="reading", daemon=True).start()
        try:
            while answer.finish_reason is None:
                try:
                    line = lines.get(timeout=POLL_EVERY)
                except queue.Empty:
                    yield _Chunk()
                    continue
                if isinstance(line, Exception):
                    if isinstance(line, TinygradChatError):
                        raise line
                    self._gone(line)
                if not line:
                    raise UsageError(f"{self.url}: the answer was cut off")
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                if line.startswith(b"data:"):
                    yield self._checked(data)
        finally:
            for each in connections:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)  # unblocks the reading thread

    def _checked(self, data: bytes) -> _Chunk:
        chunk = parse_json(data, _Chunk, source=self.url)
        if chunk.error:
            raise UsageError(f"{self.url}: {_reason(data, 500)}")
        return chunk

    def _connection(self) -> http.client.HTTPConnection:
        return self._kind(*self._where, timeout=TIMEOUT)

    def _gone(self, error: Exception) -> NoReturn:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UsageError(f"{self.url}: {as_clause(reason)}; is the server running?") from error


def _reason(content: bytes, status: int) -> str:
    """Return why a server refused: its error's message, if it has OpenAI's format or a similar one."""
    with contextlib.suppress(TinygradChatError):
        found: Any = parse_json(content, dict[str, Any], source="")
        error = found.get("error", found.get("detail"))
        message = error.get("message") if isinstance(error, dict) else error
        if isinstance(message, str) and message:
            return one_line(message, most=300)
    return f"refused with status {status}"


class RemoteAnswer:
    """An answer that a server is generating."""

    finish_reason: str | None = None

    def cancel(self) -> None:
        """Stop reading the answer."""
        self.finish_reason = self.finish_reason or "cancelled"


class RemoteChat(Turns):
    """One conversation with a `model` of a server. It is always sent whole; the server refuses one that is too long."""

    def __init__(
        self, server: RemoteServer, model: str, *, system: str | None = None, options: GenerationOptions | None = None
    ) -> None:
        self._server, self.model = server, model
        self._answers = 0  # answers begun so far: each has its own seed
        super().__init__(system, options)

    @property
    def context(self) -> int:
        """The model's context. Raises UsageError: the API does not report it."""
        raise UsageError("a remote server does not report tokens")

    token_count = context

    def name_of(self, token: int) -> str:
        """Return the text of a token. Raises UsageError: the API does not report tokens."""
        raise UsageError("a remote server does not report tokens")

    def reply(self, text: str) -> Steps:
        """Ask a question; yield the pieces of the answer. Raises UsageError if the server refuses or disconnects."""
        asked = Message(USER, (Part(TEXT, text),))
        shown = self._shown(self._turns, asked)
        options = self.options
        others = {
            "top_p": options.top_p,
            "top_k": options.top_k,
            "min_p": options.min_p,
            "repetition_penalty": options.repetition_penalty if options.repetition_penalty != 1 else None,
            "stop": list(options.stops) or None,
        }
        body = {
            "model": self.model,
            "messages": shown.to_json()["messages"],
            "stream": True,
            "max_tokens": options.max_new_tokens,
            "temperature": options.temperature,
            "seed": options.seed + self._answers,
            **{name: value for name, value in others.items() if value is not None},
        }
        self._answers += 1
        self._asked, self._is_answered = text, False
        request = RemoteAnswer()
        return self._answer(asked, request, self._steps(request, body))

    def _steps(self, request: RemoteAnswer, body: Any) -> Iterator[TokenStep]:
        with contextlib.closing(self._server.stream(request, body)) as chunks:  # pyright: ignore[reportArgumentType]
            for chunk in chunks:
                for choice in (chunk.choices or [_Choice()])[:1]:
                    delta = choice.delta or _Delta()
                    piece = delta.part or _Piece(type=TEXT, text=delta.content or "")
                    yield TokenStep(-1, piece.text, 0.0, (), False, piece.type)
                    if choice.finish_reason:
                        request.finish_reason = choice.finish_reason
