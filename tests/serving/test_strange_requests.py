"""Whatever JSON a request holds, it is answered, or refused by an error object that says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("starlette", reason="starlette, of the extra serve, is not installed")
from starlette.testclient import TestClient

from tests.cli.chatting import TOKENIZER
from tinygrad_chat import GPT, ModelOptions
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.serving.app import create_app
from tinygrad_chat.serving.model import Served

MESSAGES = [{"role": "system", "content": "be kind"}, {"role": "user", "content": [{"type": "text", "text": "hi"}]}]
SHORT = {"model": "tiny", "max_tokens": 2, "temperature": 1.0, "top_p": 0.9, "seed": 1, "stop": ["a"], "stream": False}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {
        **SHORT,
        "messages": MESSAGES,
        "max_completion_tokens": 2,
        "logprobs": True,
        "top_logprobs": 2,
        "stream_options": {"include_usage": True},
        "n": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "top_k": 3,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "tools": [],
        "response_format": {"type": "text"},
    },
    "/v1/completions": {**SHORT, "prompt": "hi", "echo": True, "logprobs": 1, "n": 1, "best_of": 1, "suffix": None},
    "/tokenize": {"prompt": "hi", "add_special_tokens": True},
    "/detokenize": {"tokens": [104, 105]},
    "/v1/look": {"messages": [*MESSAGES, {"role": "assistant", "content": "ho"}], "index": 1},
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """A client of a small model that has learned nothing; it raises what the server does not catch."""
    model = GPT(TOKENIZER.size, ModelOptions(layers=1, heads=2, width=8, context=256))
    served = Served(name="tiny", engine=Engine(model, TOKENIZER))
    said: list[str] = []
    with TestClient(create_app(lambda: served, say=said.append), base_url="http://127.0.0.1") as opened:
        yield opened
    assert said == []


FIELDS = [(path, name) for path, body in BODIES.items() for name in body]

numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63, 2**53 + 1, -1, 0, 1e308, 5e-324])
texts = st.text(st.characters(), max_size=20) | st.sampled_from(
    ["\ud800", "\udfff\ud800", "\x00", "<|bos|>", "é" * 999]
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
parts = st.fixed_dictionaries({}, optional={"type": st.just("text") | values, "text": texts | values})
messages = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["system", "developer", "user", "assistant", "tool", "function"]) | values,
            "content": texts | st.lists(parts, max_size=3) | values,
            "tool_calls": values,
            "name": values,
        },
    ),
    max_size=4,
)


def expect_answer_or_refusal(client: TestClient, path: str, body: Any) -> None:
    """Fail where it is anything else; the client raises what the server does not catch."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (200, 400, 404, 413, 422), answer.text
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"].isprintable()
        assert len(error["message"]) < 1000
    elif "text/event-stream" in answer.headers["content-type"]:
        assert answer.text.endswith("data: [DONE]\n\n")
        assert '"error"' not in answer.text
    else:
        json.loads(answer.content, parse_constant=pytest.fail)


@pytest.mark.parametrize("path", BODIES)
def test_what_is_right_is_answered(client: TestClient, path: str):
    """Otherwise the tests below might ask for nothing."""
    assert client.post(path, json=BODIES[path]).status_code == 200


@pytest.mark.parametrize(("path", "name"), FIELDS, ids=[f"{path} {name}" for path, name in FIELDS])
@given(value=values)
def test_any_value_in_any_field(client: TestClient, path: str, name: str, value: Any):
    expect_answer_or_refusal(client, path, {**BODIES[path], name: value})


@pytest.mark.parametrize("path", BODIES)
@given(body=values)
def test_any_body(client: TestClient, path: str, body: Any):
    expect_answer_or_refusal(client, path, body)


@pytest.mark.parametrize("path", BODIES)
@given(body=st.binary(max_size=40))
def test_any_bytes(client: TestClient, path: str, body: bytes):
    expect_answer_or_refusal(client, path, body)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/look", "/tokenize"])
@given(said=messages, stream=st.booleans())
def test_any_messages(client: TestClient, path: str, said: Any, stream: bool):
    extra = {"max_tokens": 2, "stream": stream} if path.startswith("/v1/chat") else {}
    expect_answer_or_refusal(client, path, {**extra, "messages": said})


STRANGE_BODIES = {
    "100,000 arrays in each other": b"[" * 100_000,
    "100,000 objects in each other": b'{"messages":' * 100_000,
    "deep within a field": b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no JSON": b"hello",
    "nothing": b"",
    "half of it": b'{"messages": [{"role": "us',
    "bytes that are no text": b'{"messages": "\xff\xfe"}',
    "NaN": b'{"messages": [], "temperature": NaN}',
    "infinity": b'{"messages": [], "temperature": -Infinity}',
    "a number without end": b'{"messages": [], "seed": ' + b"9" * 100_000 + b"}",
    "a key twice": b'{"messages": [], "messages": 1}',
    "a mark of byte order": b'\xef\xbb\xbf{"messages": []}',
    "another encoding": '{"messages": []}'.encode("utf-16"),
    "half a surrogate": b'{"messages": [{"role": "user", "content": "\\ud800"}], "max_tokens": 1}',
}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("body", STRANGE_BODIES.values(), ids=STRANGE_BODIES)
def test_strange_bodies(client: TestClient, path: str, body: bytes):
    expect_answer_or_refusal(client, path, body)
