"""Errors in the format that OpenAI's clients expect: a status, and an object `error`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinygrad_chat.errors import FormatError, MemoryShortageError, NoRoomError, TinygradChatError
from tinygrad_chat.formatting import one_line

KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
INVALID, SERVER = "invalid_request_error", "server_error"


class ApiError(Exception):
    """An error response. `param` is the request's field at fault, `code` is for programs to compare."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, one_line(message), param, code
        self.headers = dict(headers or {})

    @property
    def content(self) -> dict[str, Any]:
        """The body of the response, for JSON."""
        kind = KINDS.get(self.status, SERVER if self.status >= 500 else INVALID)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def as_api_error(error: BaseException) -> ApiError:
    """Return the response to a request that has failed with this error.

    Errors of this package with exit code 2 are the client's (400), and a lack of memory is temporary (503). Any other
    error is the server's (500), and the client is told nothing more.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, MemoryError | MemoryShortageError | NoRoomError):
        return ApiError(
            503, "not enough memory for this request now; ask for less, or try again later", code="out_of_memory"
        )
    if isinstance(error, FormatError):
        return ApiError(400, str(error).removeprefix("the body: "), param=error.key or None)
    if isinstance(error, TinygradChatError) and error.exit_code == 2:
        return ApiError(400, str(error))
    return ApiError(500, "internal server error; see the server's log")


def context_exceeded(received: int, context: int, param: str) -> ApiError:
    """Return the error for a prompt that is longer than the model's context."""
    return ApiError(
        400,
        f"the model's context is {context:,} tokens, and the prompt has {received:,}; shorten it, or drop the "
        "earliest messages",
        param=param,
        code="context_length_exceeded",
    )


def out_of_time() -> ApiError:
    """Return the error for an answer that takes too long."""
    return ApiError(504, "the answer took longer than this server allows (--timeout)", code="timeout")
