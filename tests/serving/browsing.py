"""The page in a real Chromium, and the application in a thread of the test."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from playwright.sync_api import Page, Route

from tests.inference.answering import BYTES, V, answering
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.serving.app import create_app
from tinygrad_chat.serving.model import Served
from tinygrad_chat.serving.options import ServingOptions

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
KEY = "a key"


@dataclass
class Serving:
    """An application that is being served, with an engine that pauses before each step."""

    address: str
    engine: Engine
    said: list[str] = field(default_factory=list)
    pause: float = 0.0


@contextmanager
def served(model: GPT, **options: Any) -> Iterator[Serving]:
    """Serve a model of bytes on a free port."""
    engine = Engine(model, BYTES, rows=4)
    serving = Serving("", engine)
    step = engine.step

    def slow_step() -> None:
        time.sleep(serving.pause)
        step()

    engine.step = slow_step
    one = Served(name="tiny", engine=engine)
    app = create_app(lambda: one, ServingOptions(**options), say=serving.said.append)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", lifespan="on", ws="none"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    serving.address = f"http://127.0.0.1:{port}/"
    try:
        yield serving
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


def attentive() -> GPT:
    """Return a model with attention, of bytes, untrained."""
    return GPT(V, ModelOptions(width=8, layers=2, heads=2, context=64))


def counting(count: int = 26) -> GPT:
    """Return a model that answers with the alphabet."""
    return answering("abcdefghijklmnopqrstuvwxyz"[:count], context=128)


def stream_of(*pieces: str | dict[str, str], reason: str = "stop") -> str:
    """Return the body of an answer, whole: texts, and parts that are calls or results."""
    deltas = [{"content": piece} if isinstance(piece, str) else {"part": piece} for piece in pieces]
    chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


def answer_with(page: Page, body: str, *, status: int = 200, headers: dict[str, str] | None = None) -> list[Any]:
    """Answer chats in the server's place; return the list of what is asked, as it grows."""
    asked: list[Any] = []

    def answer(route: Route) -> None:
        asked.append(route.request.post_data_json)
        kind = "text/event-stream" if status == 200 else "application/json"
        route.fulfill(status=status, headers={"Content-Type": kind, **(headers or {})}, body=body)

    page.route("**/v1/chat/completions", answer)
    return asked


def error_of(message: str, code: str | None = None) -> str:
    """Return an error object."""
    return json.dumps({"error": {"message": message, "type": "x", "param": None, "code": code}})


def ask(page: Page, text: str) -> None:
    """Send a message by the keyboard."""
    page.locator("#question").fill(text)
    page.keyboard.press("Enter")


def answers(page: Page) -> list[str]:
    """Return the answers, once none is being written."""
    page.wait_for_function("() => !document.querySelector('[aria-busy=true]') && !document.querySelector('.busy')")
    return page.locator(".answer .said").all_inner_texts()


def questions(page: Page) -> list[str]:
    """Return what was asked."""
    return page.locator(".question .said").all_inner_texts()


def kept(page: Page) -> Sequence[Any]:
    """Return the messages of the chats that the browser keeps, the newest first."""
    return page.evaluate("async () => (await import('/static/chat/store.js')).allChats().map((chat) => chat.messages)")
