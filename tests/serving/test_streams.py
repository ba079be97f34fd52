"""A stream sends what has come, all of it at a time: each token where it keeps up, several where it does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from tests.serving.asking import events_of, scripted
from tinygrad_chat.errors import DivergedError
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.request import Request
from tinygrad_chat.schema import parse_json
from tinygrad_chat.serving.model import Served
from tinygrad_chat.serving.openai import ChatFormat
from tinygrad_chat.serving.requests import ChatRequest
from tinygrad_chat.serving.streams import events
from tinygrad_chat.serving.worker import Answers
from tinygrad_chat.text.conversations import Conversation


def submitted(served: Served) -> Request:
    return served.engine.submit_answer(Conversation.of("hi"), GenerationOptions(temperature=0))


async def pieces_of(
    served: Served, request: Request, told: list[str], *, behind: int, fails: bool = False
) -> list[str]:
    """What is sent of an answer by whoever is `behind` by so many steps each time, and what is told of an error."""
    loop = asyncio.get_running_loop()
    answers = Answers(served, [request], loop)
    asked: Any = parse_json(b'{"messages": [{"role": "user", "content": "hi"}]}', ChatRequest, source="")
    form = ChatFormat(asked, served, answers.prompts)
    sent = []
    stream: Any = events(answers, form, None, deadline=loop.time() + 60, on_error=told.append)
    sent.append(await anext(stream))
    while not answers.are_over:
        for _ in range(behind):
            if not answers.are_over:
                served.engine.step()
                answers.receive(answers.drain())
        if fails:
            answers.receive(DivergedError("no numbers"))
            break
        sent.append(await anext(stream))
    return sent + [piece async for piece in stream]


@pytest.mark.parametrize(("behind", "most"), [(1, 9), (3, 5), (50, 3)])
def test_tokens_that_have_come_are_sent_in_one_piece(behind: int, most: int):
    served = scripted(hi="Hello.")
    sent = asyncio.run(pieces_of(served, submitted(served), [], behind=behind))
    assert len(sent) <= most  # with the first piece, which says who speaks, and the last, which says that it is all
    said = [event["choices"][0]["delta"].get("content", "") for event in events_of("".join(sent))]
    assert [each for each in said if each] == list("Hello.")
    if behind == 1:
        assert [len(events_of(piece + "data: [DONE]\n\n")) for piece in sent[:-2]] == [1] * (len(sent) - 2)


def test_what_came_before_an_error_is_sent_before_it():
    served, told = scripted(hi="Hello."), []
    sent = asyncio.run(pieces_of(served, submitted(served), told, behind=3, fails=True))
    *said, error = events_of("".join(sent))
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in said) == "Hel"
    assert "server" in error["error"]["message"]
    assert told == ["an answer has ended early: DivergedError: no numbers"]
