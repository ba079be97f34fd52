"""Access control and size limits: what is checked before a request is handled."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import traceback
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tinygrad_chat.schema import parse_json
from tinygrad_chat.serving.errors import ApiError, as_api_error, out_of_time
from tinygrad_chat.serving.metrics import Metrics
from tinygrad_chat.serving.options import ServingOptions

MAX_BODY = 1 << 20  # bytes
BODY_SECONDS = 30.0
OPEN_PATHS = ("/", "/health")
"""Paths that need no key; neither do the page's files below /static/."""

T = TypeVar("T")


class Guard:
    """Middleware that refuses forbidden requests, counts requests, and turns exceptions into error responses."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        options: ServingOptions,
        metrics: Metrics,
        say: Callable[[str], None],
        paths: Collection[str],
    ) -> None:
        self._app, self._options, self._metrics, self._say, self._paths = app, options, metrics, say, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and pass it on: the ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def noted_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-content-type-options", b"nosniff")]
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
            await self._app(scope, receive, noted_send)
        except Exception as error:
            found = as_api_error(error)
            if found.status == 500:
                self._say(f"internal server error: {type(error).__name__}: {error} ({_place(error)})")
            if not status:
                await error_response(found)(scope, receive, noted_send)
        path = scope["path"] if scope["path"] in self._paths else "other"  # or made-up paths could fill the memory
        self._metrics.requests[path, status] += 1

    def _check(self, path: str, headers: Headers) -> None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if self._options.is_local and host and not _is_this_machine(host):
            raise ApiError(403, f"the host {host!r:.80} is not this machine; use 127.0.0.1 or localhost", code="host")
        own = {f"http://{host}", f"https://{host}"}
        if origin is not None and origin not in own and origin not in self._options.origins:
            raise ApiError(
                403, f"pages of {origin!r:.80} may not send requests; allow them with --allow-origin", code="origin"
            )
        key = self._options.api_key
        if key is None or path in OPEN_PATHS or path.startswith("/static/"):
            return
        kind, _, sent = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(sent.encode("utf-8", "replace"), key.encode()):
            raise ApiError(
                401,
                "expected this server's key, as in Authorization: Bearer KEY, received "
                + ("another one" if sent else "none"),
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _is_this_machine(host: str) -> bool:
    """Return whether a Host header names this machine. Otherwise a web page whose own domain resolves to this machine
    could send requests (DNS rebinding)."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}, line {frame.lineno}"


def error_response(error: ApiError) -> JSONResponse:
    """Return an error as a response."""
    return JSONResponse(error.content, error.status, error.headers)


async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
    """Answer a request with an unknown path, or a method that the path does not allow."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path[:80]}: {error.detail}; /openapi.json lists all endpoints"
    return error_response(ApiError(error.status_code, message, headers=error.headers))


async def read_request(request: Request, kind: type[T]) -> T:
    """Parse a request's JSON body as a `kind`. Raises ApiError if it is too long or comes too slowly, and FormatError
    if it is not valid."""
    promised = request.headers.get("content-length", "")
    if promised.isascii() and promised.isdigit() and (len(promised) > 20 or int(promised) > MAX_BODY):
        raise _too_long()
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    raise _too_long()
    except TimeoutError:
        raise ApiError(408, f"the body did not arrive within {BODY_SECONDS:g} seconds") from None
    except ClientDisconnect:
        raise _gone() from None
    return await asyncio.to_thread(parse_json, bytes(body), kind, source="the body")


def _too_long() -> ApiError:
    return ApiError(
        413, f"expected a body of at most {MAX_BODY >> 20} MiB, received a longer one", code="body_too_long"
    )


def _gone() -> ApiError:
    return ApiError(499, "client disconnected")


async def in_time(request: Request, answer: Coroutine[Any, Any, T], deadline: float) -> T:
    """Await `answer`; cancel it and raise ApiError if the client disconnects first, or at the event loop's time
    `deadline`."""
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_leaves(request))
    try:
        left = deadline - asyncio.get_running_loop().time()
        await asyncio.wait({answering, leaving}, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED)
        if answering.done():
            return answering.result()
        raise _gone() if leaving.done() else out_of_time()
    finally:
        for each in (answering, leaving):
            each.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def _leaves(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
