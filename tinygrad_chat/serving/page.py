"""The chat page at `/`, and its files."""

from __future__ import annotations

import functools
import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tinygrad_chat.pages import read_file

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache", "Referrer-Policy": "no-referrer"}
_FILE = re.compile(r"(?:palette|chat)\.css|chat/[a-z]+\.js")
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}


def page_routes() -> list[Route]:
    """Return the page's routes. Its policy allows only its own scripts and requests to its own server, and forbids
    other pages to frame it."""
    return [Route("/", _page), Route("/static/{name:path}", _part)]


async def _page(request: Request) -> Response:
    return _response("chat.html")


async def _part(request: Request) -> Response:
    name = request.path_params["name"]
    if not _FILE.fullmatch(name):
        raise HTTPException(404)
    try:
        return _response(name)
    except FileNotFoundError:
        raise HTTPException(404) from None


def _response(name: str) -> Response:
    return Response(_content(name), media_type=_KINDS[name.rpartition(".")[2]], headers=_HEADERS)


@functools.cache
def _content(name: str) -> str:
    return read_file(name)
