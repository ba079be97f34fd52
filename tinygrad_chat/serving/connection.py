"""Connection timeouts: for sending the head of a request, and for reading the response.

uvicorn has neither: a client that connects and sends nothing, sends a byte a minute, or stops reading could hold a file
descriptor indefinitely, and block the server's shutdown.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0  # for the head of a request, and for a body whose request was already answered
STALL_SECONDS = 60.0  # in which the client reads nothing of what was sent


class Connection(H11Protocol):
    """uvicorn's protocol, with these timeouts."""

    _heading: asyncio.TimerHandle | None = None
    """The timeout for the head of a request; None while a request is answered, or a kept-alive connection is idle."""
    _stalling: asyncio.TimerHandle | None = None
    """When to check whether the client still reads; None while nothing is left to send."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the timeout for the first request."""
        super().connection_made(cast(asyncio.Transport, transport))
        self.transport.set_write_buffer_limits(0)  # so that `pause_writing` is called for any unread byte
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Receive bytes, and start or cancel the timeout for the head."""
        super().data_received(data)
        self._watch_head()

    def pause_writing(self) -> None:
        """Start to check whether the client reads what is sent."""
        super().pause_writing()
        self._watch_stall()

    def resume_writing(self) -> None:
        """Stop the check: everything was sent."""
        super().resume_writing()
        self._stalling = _cancelled(self._stalling)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel both timeouts."""
        super().connection_lost(exc)
        self._heading = _cancelled(self._heading)
        self._stalling = _cancelled(self._stalling)

    def _watch_head(self) -> None:
        cycle: Any = self.cycle
        if cycle is not None and not cycle.response_complete:
            self._heading = _cancelled(self._heading)
        elif self._heading is None:
            self._heading = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _watch_stall(self) -> None:
        self._stalling = self.loop.call_later(STALL_SECONDS, self._end_if_stalled, self._unsent())

    def _end_if_stalled(self, unsent: int) -> None:
        """Abort if no byte was read since `unsent` were left; a plain close would wait for the client."""
        if self._unsent() < unsent:
            self._watch_stall()
        else:
            self.transport.abort()

    def _unsent(self) -> int:
        return self.transport.get_write_buffer_size()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer:
        timer.cancel()
