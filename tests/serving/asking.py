"""A small model that is served in this process, and one that says what a test wants."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from tests.cli.chatting import TOKENIZER, ScriptedModel
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.serving.app import create_app
from tinygrad_chat.serving.model import Served, can_chat
from tinygrad_chat.serving.options import ServingOptions
from tinygrad_chat.tools.calculator import calculate

CONTEXT = 64
HERE = "http://127.0.0.1:8000"


def restless_model(**options: Any) -> GPT:
    """A model in float64 for which every token matters."""
    sizes = {"layers": 2, "heads": 2, "width": 16, "context": CONTEXT, **options}
    model = GPT(TOKENIZER.size, ModelOptions(**sizes), dtype=np.float64)
    model.parameters().data[:] = np.random.default_rng(0).normal(size=model.parameters().size) / 2
    return model


def served(model: Any = None, *, tokenizer: Any = TOKENIZER, rows: int = 4) -> Served:
    """A model with its engine, by default the restless one."""
    engine = Engine(
        restless_model() if model is None else model,
        tokenizer,
        rows=rows,
        tool=calculate if can_chat(tokenizer) else None,
    )
    return Served(name="tiny", engine=engine, step=7)


def scripted(**script: str) -> Served:
    """A model that answers each question as the script says."""
    return served(ScriptedModel(script))


@contextmanager
def asking(
    one: Served | None = None,
    *,
    newest: Callable[[], Served] | None = None,
    said: list[str] | None = None,
    **settings: Any,
) -> Iterator[TestClient]:
    """A client of a server for that model, or for the one that `newest` gives, as pages and programs here have it."""
    found = one or served()
    options = ServingOptions(**{"rows": 4, "max_queue": 4, **settings})
    say = (said if said is not None else []).append
    app = create_app(newest or (lambda: found), options, say=say)
    with TestClient(app, base_url=HERE) as client:
        yield client


def chat(question: str = "hi", **settings: Any) -> dict[str, Any]:
    """What a chat's request holds."""
    return {"messages": [{"role": "user", "content": question}], "seed": 1, **settings}


def events_of(text: str) -> list[Any]:
    """The events of a stream, which ends as it must."""
    lines = [line for line in text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
