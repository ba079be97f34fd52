"""Who may ask, from where, and how much: and whatever is sent, the answer is an error object and no 500."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from tests.serving.asking import HERE, asking, chat, events_of, served
from tinygrad_chat.errors import ConfigError, UsageError
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.serving import limits
from tinygrad_chat.serving.options import ServingOptions

CHATS = "/v1/chat/completions"


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "127.9.9.9"])
def test_this_machine_s_own_names_are_answered(host: str):
    with asking() as client:
        assert client.get("/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil", "[x"]
)
def test_a_name_that_only_leads_here_is_not(host: str):
    with asking() as client:
        assert client.get("/health", headers={"host": host}).status_code == 403


def test_pages_of_other_origins_may_not_ask():
    with asking() as client:
        assert client.get("/health", headers={"origin": HERE}).status_code == 200
        answer = client.post(CHATS, json=chat(), headers={"origin": "http://evil.example"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin")
        assert client.get("/health", headers={"origin": "null"}).status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_an_origin_that_is_named_may():
    origin = "http://localhost:3000"
    with asking(allow_origin=origin) as client:
        answer = client.get("/v1/models", headers={"origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        asked = {"origin": origin, "access-control-request-method": "POST"}
        assert client.options(CHATS, headers=asked).status_code == 200
        assert client.get("/v1/models", headers={"origin": "http://localhost:3001"}).status_code == 403


def test_with_a_key_only_who_sends_it_is_answered(monkeypatch: pytest.MonkeyPatch):
    compared: list[tuple[bytes, bytes]] = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(limits.hmac, "compare_digest", compare)
    with asking(api_key="secret") as client:
        for sent in (None, "Bearer other", "Basic secret", "Bearer", "Bearer é"):
            headers = [(b"authorization", sent.encode())] if sent else []
            answer = client.get("/v1/models", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
            assert "secret" not in answer.text
        assert client.get("/v1/models", headers={"authorization": "Bearer secret"}).status_code == 200
        assert client.get("/health").status_code == 200
    assert compared[-1] == (b"secret", b"secret")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.1", "::", "example.com"])
def test_an_address_that_others_reach_needs_a_key(host: str):
    with pytest.raises(UsageError, match="TGC_API_KEY"):
        ServingOptions(host=host)
    assert not ServingOptions(host=host, api_key="k").is_local


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_an_address_of_this_machine_alone_needs_none(host: str):
    assert ServingOptions(host=host).is_local


@pytest.mark.parametrize("settings", [{"api_key": "a\n"}, {"api_key": "é"}, {"allow_origin": "*"}, {"port": 70_000}])
def test_options_that_cannot_be_are_refused(settings: dict[str, Any]):
    with pytest.raises(ConfigError):
        ServingOptions(**settings)


BODIES = {
    "nothing": (b"", 400),
    "no JSON": (b"hello", 400),
    "no UTF-8": (b'{"prompt": "\xff"}', 400),
    "half a character": (rb'{"messages": [{"role": "user", "content": "\ud800"}]}', 400),
    "a list": (b"[]", 400),
    "NaN": (b'{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}', 400),
    "a number of many digits": (b'{"messages": [], "seed": ' + b"9" * 9999 + b"}", 400),
    "depth": (b'{"messages": ' + b"[" * 100_000, 400),
    "depth of what is passed over": (b'{"messages": [], "x": ' + b"[" * 500 + b"]" * 500 + b"}", 400),
    "length": (b" " * (limits.MAX_BODY + 1), 413),
}


@pytest.mark.parametrize("name", BODIES)
def test_whatever_a_body_is_the_answer_is_an_error_object(name: str):
    body, status = BODIES[name]
    with asking() as client:
        answer = client.post(CHATS, content=body)
    assert answer.status_code == status
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}
    assert "\n" not in answer.json()["error"]["message"]


def test_no_more_of_a_body_is_kept_than_is_allowed():
    """Of 100 MB that nobody has announced, as of those that somebody has."""
    given = 0

    def pieces() -> Any:
        nonlocal given
        for _ in range(100):
            given += 1
            yield b" " * (1 << 20)

    class Asked:
        headers: dict[str, str] = {}  # noqa: RUF012

        async def stream(self) -> Any:
            for piece in pieces():
                yield piece

    with pytest.raises(limits.ApiError) as refused:
        asyncio.run(limits.read_request(Asked(), dict))  # pyright: ignore[reportArgumentType]
    assert (refused.value.status, given) == (413, 2)
    Asked.headers = {"content-length": "104857600"}
    with pytest.raises(limits.ApiError) as refused:
        asyncio.run(limits.read_request(Asked(), dict))  # pyright: ignore[reportArgumentType]
    assert (refused.value.status, given) == (413, 2)


def test_paths_and_methods_that_are_not_there():
    with asking() as client:
        assert client.get("/nothing").json()["error"]["type"] == "not_found_error"
        assert client.get(CHATS).status_code == 405


class Waiting(Engine):
    """An engine that does not step before it may."""

    def __init__(self, **options: Any) -> None:
        one = served().engine
        super().__init__(one.model, one.tokenizer, **options)
        self.may = threading.Event()

    def step(self) -> None:
        self.may.wait()
        super().step()


def test_more_than_there_is_room_for_is_told_to_come_again():
    one = served()
    engine = Waiting(rows=1)
    one = type(one)(name="tiny", engine=engine)
    with asking(one, rows=1, max_queue=1) as client:
        found: list[int] = []
        threads = [
            threading.Thread(target=lambda: found.append(client.post(CHATS, json=chat(max_tokens=2)).status_code))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        while "tgc_answers_open 2" not in client.get("/metrics").text:
            pass
        busy = client.post(CHATS, json=chat())
        engine.may.set()
        for thread in threads:
            thread.join()
        assert (busy.status_code, busy.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert busy.headers["retry-after"] == "1"
        assert found == [200, 200]
        assert client.post(CHATS, json=chat(max_tokens=2)).status_code == 200


def test_an_answer_that_takes_too_long_is_ended_and_its_place_is_free():
    engine = Waiting(rows=1)
    one = type(served())(name="tiny", engine=engine)
    with asking(one, timeout=0.05) as client:
        last = events_of(client.post(CHATS, json=chat(stream=True)).text)[-1]
        assert last["error"]["code"] == "timeout"
        assert client.post(CHATS, json=chat()).status_code == 504
        engine.may.set()
        assert "tgc_answers_open 0" in client.get("/metrics").text


class Failing(Engine):
    """An engine whose first steps fail."""

    errors: list[Exception]

    def step(self) -> None:
        super().step()
        if self.errors:
            raise self.errors.pop(0)


def test_an_error_of_the_engine_ends_those_answers_and_no_others():
    one = served()
    engine = Failing(one.engine.model, one.engine.tokenizer, rows=2)
    engine.errors = [MemoryError(), RuntimeError("a fault"), RuntimeError("a fault")]
    said: list[str] = []
    with asking(type(one)(name="tiny", engine=engine), said=said) as client:
        short = client.post(CHATS, json=chat())
        assert (short.status_code, short.json()["error"]["code"]) == (503, "out_of_memory")
        broken = client.post(CHATS, json=chat())
        assert broken.status_code == 500
        assert "a fault" not in broken.text
        streamed = events_of(client.post(CHATS, json=chat(stream=True)).text)
        assert streamed[-1]["error"]["type"] == "server_error"
        assert client.post(CHATS, json=chat(max_tokens=2)).status_code == 200
    assert len(said) == 2
    assert all("RuntimeError: a fault" in line for line in said)


def test_the_description_is_of_what_is_there():
    with asking() as client:
        described = client.get("/openapi.json").json()
        for path, operations in described["paths"].items():
            method = "get" if "get" in operations else "post"
            assert client.request(method, path, json={} if method == "post" else None).status_code in (200, 400)
    schemas = described["components"]["schemas"]
    asked = schemas["ChatRequest"]
    assert asked["required"] == ["messages"]
    assert asked["properties"]["top_logprobs"]["anyOf"] == [
        {"type": "integer", "minimum": 0, "maximum": 20},
        {"type": "null"},
    ]
    named = {line.split('"')[0] for line in json.dumps(described).split("#/components/schemas/")[1:]}
    assert named <= schemas.keys()
