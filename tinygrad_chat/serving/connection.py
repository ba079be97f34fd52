"""A connection, which has only so long to send the head of a request, and to read what it is answered.

uvicorn limits neither: whoever connects and says nothing, sends a byte a minute, or no longer reads, would hold a file
for as long as they like, and keep a server from its end.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 30.0  # for the head of a request, and for a body that nobody waits for
STALL_SECONDS = 60.0  # in which nothing is read of what was sent


class Connection(H11Protocol):
    """uvicorn's protocol, with an end to waiting."""

    _heading: asyncio.TimerHandle | None = None
    """Until when the head of a request may come; None while a request is answered, or none has begun."""
    _stalling: asyncio.TimerHandle | None = None
    """When to look whether what is to be sent was read; None where nothing is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request."""
        super().connection_made(cast(asyncio.Transport, transport))
        self.transport.set_write_buffer_limits(0)  # so that `pause_writing` tells of whatever is not yet read
        self._watch_head()

    def data_received(self, data: bytes) -> None:
        """Take what has come, as much of a request as it may be."""
        super().data_received(data)
        self._watch_head()

    def pause_writing(self) -> None:
        """Watch whether what is to be sent is read."""
        super().pause_writing()
        self._watch_stall()

    def resume_writing(self) -> None:
        """All was sent."""
        super().resume_writing()
        self._stalling = _cancelled(self._stalling)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
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
        """End where nothing was read since there was so much `unsent`; to close would wait for it."""
        if self._unsent() < unsent:
            self._watch_stall()
        else:
            self.transport.abort()

    def _unsent(self) -> int:
        return self.transport.get_write_buffer_size()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer:
        timer.cancel()
