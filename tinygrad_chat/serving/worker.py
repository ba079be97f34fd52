"""The one thread that owns the engine: it steps the engine, and passes each answer's tokens to the event loop.

Requests are served in order of arrival; all answers that have a row advance together. When a client disconnects, its
row is free at the next step.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TypeVar

from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.request import Request, TokenStep
from tinygrad_chat.serving.errors import ApiError, out_of_time
from tinygrad_chat.serving.metrics import Metrics
from tinygrad_chat.serving.model import Served

Result = TypeVar("Result")


Coming = list[tuple[int, TokenStep | None]]
"""Steps of several answers, each with the index of its answer; None marks the end of that answer."""


class Answers:
    """The engine's requests for one API request, and a queue of their steps for a consumer on the event loop."""

    def __init__(self, served: Served, requests: Sequence[Request], loop: asyncio.AbstractEventLoop) -> None:
        self.served, self.requests, self.loop = served, requests, loop
        self.prompts = [tuple(request.window) for request in requests]
        self._open = set(range(len(requests)))
        self._coming: asyncio.Queue[Coming | Exception] = asyncio.Queue()

    async def coming(self, deadline: float | None = None) -> AsyncIterator[Coming]:
        """Yield the steps as they come, all that are ready at a time, until every answer is finished.

        Raises ApiError when the event loop's clock reaches `deadline`, and any error that ended the answers early.
        """
        left = len(self.requests)
        while left:
            try:
                async with asyncio.timeout_at(deadline):
                    found = [await self._coming.get()]
            except TimeoutError:
                raise out_of_time() from None
            while not self._coming.empty():
                found.append(self._coming.get_nowait())
            yield [each for coming in found if not isinstance(coming, Exception) for each in coming]
            for coming in found:
                if isinstance(coming, Exception):
                    raise coming
                left -= sum(step is None for _, step in coming)

    def cancel(self) -> None:
        """Cancel the answers that have not ended: no client waits for them."""
        for request in self.requests:
            request.cancel()

    @property
    def are_over(self) -> bool:
        """Whether all answers have finished."""
        return all(request.finish_reason for request in self.requests)

    def drain(self) -> Coming:
        """Return the steps since the last call. Runs in the worker's thread."""
        coming: Coming = []
        for index in sorted(self._open):
            request = self.requests[index]
            while request.steps:
                coming.append((index, request.steps.popleft()))
            if request.finish_reason:
                coming.append((index, None))
                self._open.remove(index)
        return coming

    def receive(self, coming: Coming | Exception) -> None:
        """Queue steps from the worker, or the error that ends the answers. Runs on the event loop."""
        self._coming.put_nowait(coming)


class Worker:
    """Owns a model's engine from `start` to `close`. `newest` returns, at each request, the model that answers it.

    At most `places` are taken at a time, one for each answer. All methods except `close` are called on the event loop.
    """

    def __init__(self, newest: Callable[[], Served], *, places: int, metrics: Metrics) -> None:
        self._newest, self._places, self._metrics = newest, places, metrics
        self.served = newest()
        self.taken = 0
        """How many places are taken."""
        self._changed = threading.Condition()
        self._begun: deque[Callable[[], None]] = deque()
        self._long: deque[Callable[[], None]] = deque()
        self._answers: list[Answers] = []
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread; unfinished answers are cancelled."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    @contextmanager
    def place(self, count: int = 1) -> Iterator[None]:
        """Take `count` places within this context. Raises ApiError if not enough are free."""
        if count > self._places:
            raise ApiError(
                400, f"expected at most {self._places:,} answers to one request, the most that this server holds"
            )
        if self.taken + count > self._places:
            busy = f"{self.taken:,} answers are in progress or queued; try again in a moment"
            raise ApiError(429, busy, code="rate_limit_exceeded", headers={"Retry-After": "1"})
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count

    async def ask(self, ask: Callable[[Served], list[Request]]) -> Answers:
        """Return the answers to the requests that `ask` submits to the newest model's engine."""
        loop = asyncio.get_running_loop()

        def begin() -> Answers:
            self.served = self._newest()
            answers = Answers(self.served, ask(self.served), loop)
            self._metrics.prompted += sum(len(request.window) for request in answers.requests)
            self._answers.append(answers)
            return answers

        future = self._later(begin, self._begun)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.add_done_callback(_forget)
            raise

    async def compute(self, function: Callable[[Served], Result]) -> Result:
        """Return the result of a function of the newest model. It may be slow, so only one runs between two steps."""

        def computed() -> Result:
            self.served = self._newest()
            return function(self.served)

        return await asyncio.wrap_future(self._later(computed, self._long))

    def _later(self, function: Callable[[], Result], among: deque[Callable[[], None]]) -> Future[Result]:
        future: Future[Result] = Future()

        def do() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function())
                except BaseException as error:
                    future.set_exception(error)

        with self._changed:
            among.append(do)
            self._changed.notify()
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._begun or self._long or self._answers or self._closing):
                    self._changed.wait()
                if self._closing:
                    break
                due = [*self._begun, *([self._long.popleft()] if self._long else [])]
                self._begun.clear()
            for each in due:
                each()
            for engine in {id(answers.served): answers.served.engine for answers in self._answers}.values():
                self._step(engine)
        for answers in self._answers:
            answers.cancel()

    def _step(self, engine: Engine) -> None:
        """Let an engine take a step, and pass its results to the event loop."""
        asked = [answers for answers in self._answers if answers.served.engine is engine]
        began = time.perf_counter()
        failed: Exception | None = None
        try:
            engine.step()
        except Exception as error:
            failed = error
            for answers in asked:
                answers.cancel()
        self._metrics.stepping += time.perf_counter() - began
        handed = [(answers, failed or answers.drain()) for answers in asked]
        self._metrics.generated += sum(
            step is not None for _, coming in handed if isinstance(coming, list) for _, step in coming
        )
        self._answers = [answers for answers in self._answers if not answers.are_over]
        with contextlib.suppress(RuntimeError):  # the event loop has closed in the meantime
            asked[0].loop.call_soon_threadsafe(_hand_over, handed)


def _hand_over(handed: Sequence[tuple[Answers, Coming | Exception]]) -> None:
    for answers, coming in handed:
        if coming:
            answers.receive(coming)


def _forget(begun: Future[Answers]) -> None:
    """Cancel answers begun for a client that has disconnected in the meantime."""
    if not begun.cancelled() and begun.exception() is None:
        begun.result().cancel()
