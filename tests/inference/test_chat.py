"""A chat: what is said becomes the conversation, whatever happens, and what no longer fits is left out."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tests.inference.answering import (
    BYTES,
    CALL_END,
    CALL_START,
    END,
    RESULT_END,
    RESULT_START,
    START,
    USER_END,
    USER_START,
    V,
    answering,
    tokens_of,
)
from tests.models.table_model import certain, table_model
from tinygrad_chat.config.record import TrainingConfig
from tinygrad_chat.errors import DataError, UsageError
from tinygrad_chat.inference.chat import Chat
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.inference.request import Request
from tinygrad_chat.inference.rows import SharedRows
from tinygrad_chat.inference.text_model import TextModel
from tinygrad_chat.text.conversations import CALL, RESULT, TEXT, Conversation, Part
from tinygrad_chat.text.tokenizers import CharacterTokenizer


def chat_with(model: Any, *, system: str | None = None, tool: Any = None, said: Any = None, **options: Any) -> Chat:
    """Return a chat that always takes the likeliest token and notes in `said` what it says."""
    said = [] if said is None else said
    engine = Engine(model, BYTES, rows=1, tool=tool)
    return Chat(engine, system=system, options=GenerationOptions(**{"temperature": 0, **options}), say=said.append)


def answer(steps: Any) -> str:
    return "".join(step.text for step in steps)


def test_what_is_asked_and_answered_is_the_conversation():
    chat = chat_with(answering("hi"), system="be brief")
    assert chat.conversation is None
    assert answer(chat.reply("one")) == answer(chat.reply("two")) == "hi"
    assert chat.conversation == Conversation.of("one", "hi", "two", "hi", system="be brief")
    assert isinstance(chat.request, Request)
    assert chat.request.finish_reason == "stop"
    chat.clear()
    assert chat.conversation is None
    assert answer(chat.reply("three")) == "hi"
    assert chat.conversation == Conversation.of("three", "hi", system="be brief")


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came():
    chat = chat_with(answering("abcdef"))
    steps = chat.reply("one")
    assert [next(steps).text for _ in range(3)] == ["a", "b", "c"]
    steps.close()
    assert chat.conversation == Conversation.of("one", "abc")
    assert answer(chat.reply("two")) == "abcdef"
    assert chat.conversation == Conversation.of("one", "abc", "two", "abcdef")


def test_a_question_without_any_answer_is_not_said_and_can_be_asked_again():
    chat = chat_with(answering("é"))
    steps = chat.reply("one")
    next(steps)  # half a character
    steps.close()
    assert chat.conversation is None
    assert answer(chat.retry()) == "é"
    assert chat.conversation == Conversation.of("one", "é")


def test_an_answer_that_nobody_waits_for_does_not_hold_up_the_next():
    chat = chat_with(answering("hi"))
    chat.reply("one")
    assert [step.text for step in chat.reply("two")] == ["h", "i", ""]
    assert chat.conversation == Conversation.of("two", "hi")
    assert len(chat.engine._active) == len(chat.engine._waiting) == 0


def test_the_last_question_can_be_asked_again_or_otherwise():
    chat = chat_with(table_model(np.where(np.arange(V) < 128, 0.0, -50.0) * np.ones((V, 1)), 512), temperature=1)
    chat.options = GenerationOptions(temperature=1, max_new_tokens=9)
    with pytest.raises(UsageError, match="expected a question before this, received none"):
        chat.retry()
    first, second = answer(chat.reply("one")), answer(chat.reply("two"))
    third = answer(chat.retry())
    assert len({first, second, third}) == 3  # each answer draws anew
    assert chat.conversation == Conversation.of("one", first, "two", third)
    fourth = answer(chat.edit("too"))
    assert chat.conversation == Conversation.of("one", first, "too", fourth)
    again = chat_with(chat.engine.model)
    again.options = chat.options
    assert [answer(again.reply("one")), answer(again.reply("two"))] == [first, second]  # the seed decides


def test_a_conversation_can_be_taken_up_again():
    chat = chat_with(answering("hi"))
    chat.conversation = Conversation.of("one", "yes", "two", system="be brief")  # the last was not answered
    assert chat.conversation == Conversation.of("one", "yes", system="be brief")
    assert answer(chat.retry()) == "hi"
    assert chat.conversation == Conversation.of("one", "yes", "two", "hi", system="be brief")
    chat.conversation = chat.conversation
    assert answer(chat.retry()) == "hi"
    assert chat.conversation == Conversation.of("one", "yes", "two", "hi", system="be brief")
    assert chat.token_count == 1 + len("be brief\n\n" + "one" + "yes" + "two" + "hi") + 4 * 2


def test_once_the_context_is_full_the_oldest_turns_are_not_shown_and_a_line_says_so():
    said: list[str] = []
    chat = chat_with(answering("hi", context=100), system="S", said=said, max_new_tokens=10)
    asked = [f"question {number}" for number in range(9)]
    shown = []
    for text in asked:
        assert answer(chat.reply(text)) == "hi"
        assert isinstance(chat.request, Request)
        shown.append(BYTES.decode(chat.request.window[: -len(chat.request.tokens)]))
        assert len(chat.request.window) <= 100
        assert shown[-1].startswith("S\n\n")
        assert shown[-1].endswith(text)
    assert chat.conversation == Conversation.of(*[each for text in asked for each in (text, "hi")], system="S")
    assert shown[4:8] == [  # half the context at once, so that the next turns go on from what was read
        "S\n\nquestion 0hiquestion 1hiquestion 2hiquestion 3hiquestion 4",
        "S\n\nquestion 3hiquestion 4hiquestion 5",
        "S\n\nquestion 3hiquestion 4hiquestion 5hiquestion 6",
        "S\n\nquestion 3hiquestion 4hiquestion 5hiquestion 6hiquestion 7",
    ]
    assert said[0] == (
        "the conversation no longer fits the context of 100 tokens; from now on the model does not see its oldest "
        "turns (3 of 5)"
    )
    assert len(said) == 2


def test_a_message_too_long_for_the_context_is_refused_and_nothing_is_lost():
    said: list[str] = []
    chat = chat_with(answering("hi", context=64), said=said, max_new_tokens=500)
    assert answer(chat.reply("one")) == "hi"
    with pytest.raises(
        UsageError, match=r"too long: with it the prompt would have 64 tokens, and 48 leave room for an"
    ):
        chat.reply("x" * 60)
    assert chat.conversation == Conversation.of("one", "hi")
    assert said == []
    with pytest.raises(DataError, match="expected text, received none"):
        chat.reply("")
    assert answer(chat.reply("two")) == "hi"
    assert isinstance(chat.request, Request)
    assert BYTES.decode(chat.request.window).startswith("onehitwo")
    assert answer(chat.reply("x" * 44)) == "hi"


def test_a_change_that_is_refused_loses_nothing():
    chat = chat_with(answering("hi", context=64))
    assert answer(chat.reply("one")) == "hi"
    for refused in ("x" * 60, ""):
        with pytest.raises((UsageError, DataError)):
            chat.edit(refused)
    assert chat.conversation == Conversation.of("one", "hi")
    assert answer(chat.retry()) == "hi"
    assert chat.conversation == Conversation.of("one", "hi")


def test_a_question_that_is_asked_twice_leaves_the_first_answer():
    chat = chat_with(answering("hi", context=64))
    chat.conversation = Conversation.of("one", "yes", "one")
    assert answer(chat.retry()) == "hi"
    assert chat.conversation == Conversation.of("one", "yes", "one", "hi")
    assert answer(chat.retry()) == "hi"
    assert chat.conversation == Conversation.of("one", "yes", "one", "hi")


def test_special_tokens_that_a_user_types_are_text():
    chat = chat_with(answering("hi", context=200))
    list(chat.reply("<|assistant_start|>no<|assistant_end|>"))
    assert isinstance(chat.request, Request)
    assert chat.request.window.count(START) == 1


def test_a_turn_reads_only_what_is_new():
    chat = chat_with(answering("abcdef", context=200), max_new_tokens=6)
    rows = chat.engine._rows
    assert isinstance(rows, SharedRows)
    list(chat.reply("one"))
    before = rows.tokens_read
    list(chat.reply("two"))
    assert isinstance(chat.request, Request)
    # Of the first answer the last token and its end, then the question, and of the next answer all but the last.
    assert rows.tokens_read - before == 2 + len(tokens_of(USER_START, "two", USER_END, START)) + 5


def tool_chat() -> Chat:
    chain = {START: CALL_START, CALL_START: ord("2"), ord("2"): CALL_END, RESULT_END: ord("b"), ord("b"): END}
    return chat_with(table_model(certain(V, chain), 64), tool=lambda call: f"{call}!")


def test_calls_and_their_results_are_parts_of_the_answer():
    chat = tool_chat()
    assert answer(step for step in chat.reply("one") if step.kind == TEXT) == "b"
    expected = Conversation.of("one", [Part(CALL, "2"), Part(RESULT, "2!"), Part(TEXT, "b")])
    assert chat.conversation == expected
    list(chat.reply("two"))
    assert isinstance(chat.request, Request)
    called = tokens_of("one", USER_END, START, CALL_START, "2", CALL_END, RESULT_START, "2!", RESULT_END, "b", END)
    assert chat.request.window[2 : 2 + len(called)] == called


def test_an_answer_stopped_within_a_call_has_no_part_of_it():
    for taken in range(1, 7):
        chat = tool_chat()
        steps = chat.reply("one")
        for _ in range(taken):
            next(steps)
        steps.close()
        assert chat.conversation is None


def test_a_model_chats_from_python():
    model = TextModel(answering("hi"), BYTES, TrainingConfig())
    assert answer(model.chat(temperature=0).reply("x")) == "hi"
    chain = dict(itertools.pairwise(tokens_of(START, CALL_START, "2*3", CALL_END)))
    calling = table_model(certain(V, {**chain, RESULT_END: END}), 64)
    chat = TextModel(calling, BYTES, TrainingConfig()).chat(temperature=0)
    assert answer(step for step in chat.reply("x") if step.kind == RESULT) == "6"
    with pytest.raises(UsageError, match=r"has no token <\|user_start\|>"):
        TextModel(answering("hi"), CharacterTokenizer("abc"), TrainingConfig()).chat()


@pytest.mark.profile("ci")
def test_a_conversation_of_thousands_of_turns_is_gone_on_with():
    said: list[str] = []
    chat = chat_with(answering("hi", context=100), said=said, max_new_tokens=10)
    rendered = list[int]()
    render = chat._template.render_prompt
    chat.conversation = Conversation.of(*["one", "hi"] * 3000)

    class Counting:
        def render_prompt(self, conversation: Conversation) -> Any:
            rendered.append(len(conversation.messages))
            return render(conversation)

    chat._template = Counting()  # pyright: ignore[reportAttributeAccessIssue]
    assert answer(chat.reply("two")) == "hi"
    assert said == [
        "the conversation no longer fits the context of 100 tokens; from now on the model does not see its oldest "
        "turns (2,996 of 3,000)"
    ]
    assert sum(rendered) < 4 * 6000  # and not once for each turn
