"""The application: the routes and their handlers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tinygrad_chat.inference.inspection import token_scores
from tinygrad_chat.serving import inspection, tokens
from tinygrad_chat.serving.engine_requests import ask_chat, ask_completion, completion_prompts, expect_model
from tinygrad_chat.serving.limits import Guard, in_time, on_http_exception, read_request
from tinygrad_chat.serving.metrics import Metrics
from tinygrad_chat.serving.model import Served
from tinygrad_chat.serving.openai import ChatFormat, CompletionFormat, Scores, model, models, usage_of
from tinygrad_chat.serving.openapi import description
from tinygrad_chat.serving.options import ServingOptions
from tinygrad_chat.serving.page import page_routes
from tinygrad_chat.serving.requests import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    Generation,
    LookRequest,
    TokenizeRequest,
    refuse_unsupported,
)
from tinygrad_chat.serving.streams import EventStream, events, whole
from tinygrad_chat.serving.worker import Answers, Worker


def create_app(
    newest: Callable[[], Served], options: ServingOptions | None = None, *, say: Callable[[str], None] = print
) -> Starlette:
    """Create the application. `newest` is called for each request and returns the model that answers it.

    `say` is told each event worth logging, in one line.
    """
    options = options or ServingOptions()
    metrics = Metrics()
    worker = Worker(newest, places=options.rows + options.max_queue, metrics=metrics)
    api = Api(worker, metrics, options, say)
    routes = [*api.routes(), *page_routes()]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        worker.start()
        yield
        await asyncio.to_thread(worker.close)

    paths = frozenset(route.path for route in routes)
    middleware = [Middleware(Guard, options=options, metrics=metrics, say=say, paths=paths)]
    if options.origins:
        cors = {"allow_origins": options.origins, "allow_methods": ["GET", "POST"], "allow_headers": ["*"]}
        middleware.insert(0, Middleware(CORSMiddleware, **cors))
    return Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: on_http_exception},
        lifespan=lifespan,
    )


class Api:
    """The handlers of the API's paths."""

    def __init__(self, worker: Worker, metrics: Metrics, options: ServingOptions, say: Callable[[str], None]) -> None:
        self._worker, self._metrics, self._options, self._say = worker, metrics, options, say

    def routes(self) -> list[Route]:
        """Return the routes: which path calls which handler."""
        return [
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.model),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completion, methods=["POST"]),
            Route("/v1/look", self.look, methods=["POST"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
            Route("/tokenizer_info", self.tokenizer_info),
        ]

    async def health(self, request: Request) -> Response:
        """Report that the server is up, and the model's name."""
        return JSONResponse({"status": "ok", "model": self._worker.served.name})

    async def metrics(self, request: Request) -> Response:
        """Return the metrics for Prometheus."""
        text = self._metrics.text(places=self._worker.taken, step=self._worker.served.step)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """Return the OpenAPI description."""
        return JSONResponse(description())

    async def models(self, request: Request) -> Response:
        """List the one model that is served."""
        return JSONResponse(models(self._worker.served))

    async def model(self, request: Request) -> Response:
        """Describe the model."""
        expect_model(request.path_params["name"], self._worker.served)
        return JSONResponse(model(self._worker.served))

    async def chat(self, request: Request) -> Response:
        """Answer a chat."""
        asked = await self._read(request, ChatRequest)
        deadline = self._deadline()
        with contextlib.ExitStack() as held:
            held.enter_context(self._worker.place(asked.n or 1))
            answers = await in_time(request, self._worker.ask(functools.partial(ask_chat, asked)), deadline)
            held.callback(answers.cancel)
            form = ChatFormat(asked, answers.served, answers.prompts)
            prompts = [len(answers.prompts[0])]  # the same for all answers
            return await self._answer(request, asked, answers, form, prompts, held, deadline)

    async def completion(self, request: Request) -> Response:
        """Complete a text."""
        asked = await self._read(request, CompletionRequest)
        deadline = self._deadline()
        with contextlib.ExitStack() as held:
            held.enter_context(self._worker.place(_count_completions(asked)))
            compute = functools.partial(completion_prompts, asked)
            prompts = await in_time(request, self._worker.compute(compute), deadline)
            several = [prompt for prompt in prompts for _ in range(asked.n or 1)]
            scored = await self._scored(request, asked, prompts, deadline) if asked.echo else []
            echoed = [each for each in scored for _ in range(asked.n or 1)]
            if asked.max_tokens == 0:
                form = CompletionFormat(asked, self._worker.served, several, echoed)
                return JSONResponse(
                    form.whole([[]] * len(several), ["length"] * len(several), usage_of(map(len, prompts), []))
                )
            answers = await in_time(
                request, self._worker.ask(functools.partial(ask_completion, asked, prompts)), deadline
            )
            held.callback(answers.cancel)
            form = CompletionFormat(asked, answers.served, answers.prompts, echoed)
            return await self._answer(request, asked, answers, form, [len(each) for each in prompts], held, deadline)

    async def _scored(
        self, request: Request, asked: CompletionRequest, prompts: Sequence[Sequence[int]], deadline: float
    ) -> list[tuple[str, Scores]]:
        """Return each prompt's text and its tokens' scores. Prompts are scored one at a time, so as not to block other
        requests."""
        texts = isinstance(asked.prompt, str) or (isinstance(asked.prompt, list) and isinstance(asked.prompt[0], str))

        def score(prompt: Sequence[int], served: Served) -> tuple[str, Scores]:
            scores = [] if asked.logprobs is None else token_scores(served.engine.model, prompt, asked.logprobs)
            shown = 1 if texts or asked.prompt is None else 0  # BOS was added before a text, and is not part of it
            return served.tokenizer.decode(prompt[shown:]), scores[shown:]

        found = []
        for prompt in prompts:
            compute = functools.partial(score, prompt)
            found.append(await in_time(request, self._worker.compute(compute), deadline))
        return found

    async def _answer(
        self,
        request: Request,
        asked: Generation,
        answers: Answers,
        form: Any,
        prompts: Sequence[int],
        held: contextlib.ExitStack,
        deadline: float,
    ) -> Response:
        """Return the answers, or a stream of them, which then owns what is `held` for them."""
        usage = functools.partial(usage_of, prompts, answers.requests)
        if not asked.stream:
            return JSONResponse(await in_time(request, whole(answers, form, usage), deadline))
        counted = usage if asked.stream_options and asked.stream_options.include_usage else None
        coming = events(answers, form, counted, deadline=deadline, on_error=self._say)
        return EventStream(coming, held.pop_all())

    async def tokenize(self, request: Request) -> Response:
        """Tokenize a text or a chat."""
        asked = await self._read(request, TokenizeRequest)
        return JSONResponse(await asyncio.to_thread(tokens.tokenized, asked, self._worker.served))

    async def detokenize(self, request: Request) -> Response:
        """Detokenize tokens."""
        asked = await self._read(request, DetokenizeRequest)
        return JSONResponse(await asyncio.to_thread(tokens.detokenized, asked, self._worker.served))

    async def tokenizer_info(self, request: Request) -> Response:
        """Describe the tokenizer."""
        return JSONResponse(tokens.tokenizer_info(self._worker.served))

    async def look(self, request: Request) -> Response:
        """Return the log-probability and the alternatives of each token of a chat, and the attention of one."""
        asked = await self._read(request, LookRequest)
        with self._worker.place():
            compute = functools.partial(inspection.inspected, asked)
            return JSONResponse(await in_time(request, self._worker.compute(compute), self._deadline()))

    async def _read(self, request: Request, kind: Any) -> Any:
        asked = await read_request(request, kind)
        refuse_unsupported(asked)
        return asked

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._options.timeout


def _count_completions(asked: CompletionRequest) -> int:
    given = asked.prompt
    several = isinstance(given, list) and given and not isinstance(given[0], int)
    return (len(given) if several and given else 1) * (asked.n or 1)
