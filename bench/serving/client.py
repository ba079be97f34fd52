"""A client of `tgc serve` that takes next to nothing of the machine which it shares with the server it measures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

HOST = "127.0.0.1"


@dataclass
class Answer:
    """What came of a request: its status, its text or whole body, and when, in seconds after it was asked."""

    status: int = 0
    text: str = ""
    body: Any = None
    first: float = 0.0
    finished: float = 0.0
    finish_reason: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict[str, int])


class Client:
    """One connection, kept open from request to request."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, path: str, body: Any = None, *, leave_after: int | None = None) -> Answer:
        """GET a path, or POST a body to it. Of a stream at most `leave_after` events are read: then the client leaves.

        Raises ConnectionError where the answer ends before its end.
        """
        began = time.perf_counter()
        reader = await self._send(path, body)
        answer = Answer(status=int((await self._line(reader)).split()[1]))
        headers = {}
        while line := (await self._line(reader)).strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        pieces = self._pieces(reader, headers)
        if headers.get("content-type", "").startswith("text/event-stream"):
            await self._read_events(pieces, answer, began, leave_after)
        else:
            content = b"".join([piece async for piece in pieces])
            answer.body = json.loads(content) if "json" in headers.get("content-type", "") else content.decode()
        answer.finished = time.perf_counter() - began
        if leave_after is not None or headers.get("connection") == "close":
            await self.close()
        return answer

    async def close(self) -> None:
        """Leave."""
        if self._writer:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        self._reader = self._writer = None

    async def _send(self, path: str, body: Any) -> asyncio.StreamReader:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: {HOST}:{self._port}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(HOST, self._port)
        self._writer.write(head.encode() + content)
        await self._writer.drain()
        return self._reader

    @staticmethod
    async def _line(reader: asyncio.StreamReader) -> bytes:
        line = await reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the server has gone")
        return line

    async def _pieces(self, reader: asyncio.StreamReader, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Yield the body as it comes, by its length or in chunks."""
        if headers.get("transfer-encoding") != "chunked":
            yield await reader.readexactly(int(headers["content-length"]))
            return
        while size := int(await self._line(reader), 16):
            yield await reader.readexactly(size)
            await self._line(reader)
        await self._line(reader)

    @staticmethod
    async def _read_events(pieces: AsyncIterator[bytes], answer: Answer, began: float, leave_after: int | None) -> None:
        """Read server-sent events to the end, or so many. Raises ConnectionError where the end was not announced."""
        unread, count = b"", 0
        async for piece in pieces:
            *events, unread = (unread + piece).split(b"\n\n")
            for event in events:
                data = event.removeprefix(b"data: ")
                count += 1
                if data == b"[DONE]":
                    async for _ in pieces:
                        pass
                    return
                _take_event(json.loads(data), answer, began)
                if count == leave_after:
                    return
        raise ConnectionError("the stream has no end")


def _take_event(event: Any, answer: Answer, began: float) -> None:
    """Add an event of a stream, of a chat or a text, to the answer."""
    if "error" in event:
        raise ConnectionError(f"an error in the stream: {event['error']}")
    answer.usage = event.get("usage") or answer.usage
    for choice in event["choices"]:
        text = choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        if not answer.first and (text or choice["finish_reason"]):
            answer.first = time.perf_counter() - began
        answer.text += text
        answer.finish_reason = choice["finish_reason"] or answer.finish_reason
