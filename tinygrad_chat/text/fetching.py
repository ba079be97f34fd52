"""Downloads over http and https, with limits on size and time."""

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

TIMEOUT = 20.0  # seconds without any data
MIN_RATE = 20_000  # bytes a second that a connection must reach, once TIMEOUT is over
BESIDE = 1 << 20  # bytes allowed on top of the contents: headers, redirects
PIECE = 1 << 16

ENDED_EARLY = "the download ended early"
TOO_LONG = "it timed out"


class FetchError(Exception):
    """Why something could not be fetched, in a few words."""


def fetch(url: str, *, most: int) -> Iterator[bytes]:
    """Yield the contents of a URL in pieces, at most `most` bytes in all.

    Raises FetchError for more, for a connection slower than MIN_RATE, for a redirect to anything but http and https,
    and if there is no connection or it ends early.
    """
    received = 0
    try:
        with closing(_opener(_Allowance(most)).open(url, timeout=TIMEOUT)) as response:
            while piece := response.read1(PIECE):
                received += len(piece)
                if received > most:
                    raise FetchError(f"it sent more than the {most:,} bytes expected")
                yield piece
            if response.length:  # more was announced in the header
                raise FetchError(ENDED_EARLY)
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"HTTP {error.code} {http.client.responses.get(error.code, '')}".rstrip()) from error
    except http.client.IncompleteRead as error:
        raise FetchError(ENDED_EARLY) from error
    except (http.client.HTTPException, ValueError) as error:  # its message may be the server's text
        raise FetchError(f"its response is not HTTP: {type(error).__name__}") from error
    except OSError as error:
        reason = getattr(error, "reason", error)  # what a URLError wraps
        late = isinstance(reason, TimeoutError)
        raise FetchError(TOO_LONG if late else getattr(reason, "strerror", None) or str(reason)) from error


class _Allowance:
    """How many bytes may still arrive, in all responses to a request together, and until when."""

    def __init__(self, most: int) -> None:
        self._bytes = most + BESIDE
        self._until = time.monotonic() + TIMEOUT + most / MIN_RATE

    def seconds(self) -> float:
        """Return how long to wait for the next byte. Raises FetchError if time is up."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise FetchError(TOO_LONG)
        return min(TIMEOUT, left)

    def spend(self, received: int) -> None:
        """Deduct `received` bytes. Raises FetchError if that is more than may still arrive."""
        self._bytes -= received
        if self._bytes < 0:
            raise FetchError("it sends endless headers or redirects")


class _BoundedSocket(io.RawIOBase):
    """The data of a socket, headers included, as far as an allowance goes."""

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
    """Opens connections whose responses must stay within an allowance."""

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
    """Return an opener for http and https alone; urllib's own also opens ftp, file and data URLs."""
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
