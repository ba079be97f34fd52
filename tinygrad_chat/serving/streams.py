"""An answer as one response, or streamed as server-sent events."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from tinygrad_chat.inference.request import TokenStep
from tinygrad_chat.serving.errors import as_api_error
from tinygrad_chat.serving.openai import Format, Json
from tinygrad_chat.serving.worker import Answers


async def whole(answers: Answers, form: Format, usage: Callable[[], Json]) -> Json:
    """Return the answers when all have finished."""
    found: list[list[TokenStep]] = [[] for _ in answers.requests]
    async for coming in answers.coming():
        for index, step in coming:
            if step is not None:
                found[index].append(step)
    return form.whole(found, [str(request.finish_reason) for request in answers.requests], usage())


async def events(
    answers: Answers,
    form: Format,
    usage: Callable[[], Json] | None,
    *,
    deadline: float,
    on_error: Callable[[str], None],
) -> AsyncIterator[str]:
    """Yield the answers as events, then their `usage`, if requested. An error becomes an event, too.

    If tokens come faster than they are sent, several are sent at a time.
    """

    def chunk_of(index: int, step: TokenStep | None) -> Json | None:
        if step is None:
            return form.last(index, str(answers.requests[index].finish_reason))
        return form.step(index, step)

    try:
        if begun := _events(form.first(index) for index in range(len(answers.requests))):
            yield begun
        async for coming in answers.coming(deadline):
            if shown := _events(chunk_of(index, step) for index, step in coming):
                yield shown
        if usage is not None:
            yield _events([form.usage(usage())])
    except Exception as error:
        found = as_api_error(error)
        if found.status == 500:
            on_error(f"an answer has ended early: {type(error).__name__}: {error}")
        yield _events([found.content])
    yield "data: [DONE]\n\n"


def _events(chunks: Iterable[Json | None]) -> str:
    """Return chunks as events, without those that are None."""
    shown = (json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in chunks if each is not None)
    return "".join(f"data: {each}\n\n" for each in shown)


class EventStream(StreamingResponse):
    """Server-sent events. What is `held` for them is released after the last event, or when the client disconnects."""

    def __init__(self, content: AsyncIterator[str], held: contextlib.ExitStack) -> None:
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(content, headers=headers, media_type="text/event-stream")
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events: the ASGI entry point."""
        with self._held:
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send the events, and close their iterator."""
        async with contextlib.aclosing(self.body_iterator):  # pyright: ignore[reportArgumentType] - a generator
            await super().stream_response(send)
