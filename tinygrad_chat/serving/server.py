"""Run the application on a port until shutdown."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from tinygrad_chat.errors import UsageError
from tinygrad_chat.serving.connection import STALL_SECONDS, Connection

MAX_HEADER = 1 << 15  # bytes of all headers of a request together
BACKLOG = 1024  # connections that wait to be accepted
PROBES = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": int(1000 * STALL_SECONDS)}
"""TCP options: when the system probes a silent client, and when it gives up on unacknowledged data. Not every system
has all of them."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on a host and port. Raises UsageError if that is impossible."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"--host {host}: {error.strerror or error}") from error
    except UnicodeError as error:
        raise UsageError(f"--host {host}: expected an address or a host name, received neither") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted connections inherit these options
        for name in PROBES.keys() & vars(socket).keys():
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), PROBES[name])
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"--port {port}: is in use by another program; choose another, such as {port + 1}"
            ) from error
        raise UsageError(f"--host {host} --port {port}: {error.strerror or error}") from error
    return listening


class Server:
    """Serves an application on a socket. `on_start` is called when it is ready."""

    def __init__(self, app: ASGIApp, listening: socket.socket, *, on_start: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            log_level="critical",  # the application reports errors itself, in one line
            access_log=False,
            server_header=False,
            h11_max_incomplete_event_size=MAX_HEADER,
            backlog=BACKLOG,
        )
        self._server = _Uvicorn(config, on_start)
        self._listening = listening

    def run(self) -> None:
        """Serve until `drain` or `stop` is called."""
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # asyncio warns of each client that disconnects
        self._server.run(sockets=[self._listening])

    def drain(self) -> None:
        """Shut down gracefully: accept no new connections, and end when the open requests are answered."""
        self._server.should_exit = True

    def stop(self) -> None:
        """Shut down at once, without waiting for answers."""
        self._server.should_exit = self._server.force_exit = True


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, which leaves signal handling to the command."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then call `on_start`."""
        await super().startup(sockets)
        self._on_start()
