"""What is fetched from the network, within bounds: over http and https, so many bytes, for so long."""

from __future__ import annotations

import http.client
import io
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

SILENCE = 20.0  # seconds without an answer
SLOWEST = 20_000  # bytes a second that a connection must reach, once SILENCE is over
BESIDE = 1 << 20  # bytes that may come beside what is wanted: headers, redirects
PIECE = 1 << 16

ENDED_EARLY = "it ended early"
TOO_LONG = "it takes too long"


class FetchError(Exception):
    """Why something could not be fetched, in a few words."""


def fetch(url: str, *, most: int) -> Iterator[bytes]:
    """Yield, piece by piece, what is at an address: at most `most` bytes.

    Raises FetchError for more, for a connection slower than SLOWEST, for a redirect to anything but http and https,
    and where there is no connection or it ends early.
    """
    received = 0
    try:
        with closing(_opener(_Allowance(most)).open(url, timeout=SILENCE)) as response:
            while piece := response.read1(PIECE):
                received += len(piece)
                if received > most:
                    raise FetchError(f"it sends more than the {most:,} bytes that were expected")
                yield piece
            if response.length:  # still to come, by its own header
                raise FetchError(ENDED_EARLY)
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"HTTP {error.code} {http.client.responses.get(error.code, '')}".rstrip()) from error
    except http.client.IncompleteRead as error:
        raise FetchError(ENDED_EARLY) from error
    except (http.client.HTTPException, ValueError) as error:  # whose own words may be the server's
        raise FetchError(f"it does not answer in HTTP: {type(error).__name__}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)  # of an URLError what it wraps
        late = isinstance(reason, TimeoutError)
        raise FetchError(TOO_LONG if late else getattr(reason, "strerror", None) or str(reason)) from error


class _Allowance:
    """How many bytes may still come, of all answers to a request together, and until when."""

    def __init__(self, most: int) -> None:
        self._bytes = most + BESIDE
        self._until = time.monotonic() + SILENCE + most / SLOWEST

    def seconds(self) -> float:
        """Return how long to wait for the next byte. Raises FetchError where the time is over."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise FetchError(TOO_LONG)
        return min(SILENCE, left)

    def spend(self, received: int) -> None:
        """Raise FetchError where that is more than may come."""
        self._bytes -= received
        if self._bytes < 0:
            raise FetchError("it sends headers or redirects without end")


class _BoundedSocket(io.RawIOBase):
    """What comes from a socket, headers too, as long as there is an allowance for it."""

    def __init__(self, socket: Any, allowance: _Allowance) -> None:
        self._socket, self._received, self._allowance = socket, socket.makefile("rb", buffering=0), allowance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._socket.settimeout(self._allowance.seconds())
        received = self._received.readinto(buffer)
        self._allowance.spend(received or 0)
        return received

    def close(self) -> None:
        self._received.close()
        super().close()


class _Connections(urllib.request.AbstractHTTPHandler):
    """Opens connections whose answers are within an allowance."""

    def __init__(self, allowance: _Allowance) -> None:
        super().__init__()
        self._allowance = allowance

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(self._connecting(http.client.HTTPConnection), request)

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(self._connecting(http.client.HTTPSConnection), request)

    def _connecting(self, kind: Any) -> Any:
        def answer(socket: Any, *arguments: Any, **options: Any) -> http.client.HTTPResponse:
            bounded = io.BufferedReader(_BoundedSocket(socket, self._allowance))
            return http.client.HTTPResponse(SimpleNamespace(makefile=lambda mode: bounded), *arguments, **options)  # pyright: ignore[reportArgumentType]

        def connect(*arguments: Any, **options: Any) -> Any:
            connection = kind(*arguments, **options)
            connection.response_class = answer
            return connection

        return connect


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, to http and https only."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        with closing(fp):
            return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https"):
            raise FetchError(f"it redirects to {scheme[:20]}, expected http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener(allowance: _Allowance) -> urllib.request.OpenerDirector:
    """Return what opens http and https, and nothing else; urllib's own also opens ftp, files and data."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Connections(allowance),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
