"""Rows of five dialects are the same conversations; others are refused in one line that names the key."""

import pytest

from tinygrad_chat.errors import DataError
from tinygrad_chat.text.conversations import CALL, RESULT, TEXT, Conversation, Part
from tinygrad_chat.text.conversations.dialects import conversation_of
from tinygrad_chat.text.conversations.document import chat_document
from tinygrad_chat.text.corpora import corpus_of_conversations
from tinygrad_chat.text.data import tokenize
from tinygrad_chat.text.tokenizers import BPETokenizer

HI = Conversation.of("Hi", "Hello.")
MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": MESSAGES},
        MESSAGES,
        {"conversations": MESSAGES},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
        {"instruction": "Hi", "input": "", "output": "Hello."},
        {"prompt": "Hi", "completion": "Hello."},
        {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Hello."}]},
        {"question": "Hi", "answer": "Hello."},
        {"input": "Hi", "output": "Hello."},
        {"messages": [{"role": "USER", "content": "Hi"}, {"role": "Assistant", "content": "Hello."}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}, MESSAGES[1]]},
    ],
)
def test_each_dialect_is_read(row):
    assert conversation_of(row, "a") == HI


def test_a_system_message_and_what_alpaca_adds():
    row = {"conversations": [{"from": "system", "value": "Be kind."}, *MESSAGES]}
    assert conversation_of(row, "a") == Conversation.of("Hi", "Hello.", system="Be kind.")
    row = {"instruction": "Add.", "input": "2, 3", "output": "5"}
    assert conversation_of(row, "a") == Conversation.of("Add.\n\n2, 3", "5")
    row = {"instruction": "Hi", "output": "Hello.", "system": "Be kind."}
    assert conversation_of(row, "a") == Conversation.of("Hi", "Hello.", system="Be kind.")


def test_tools_are_parts_of_the_message_that_calls_them():
    called = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "sum", "arguments": "2, 3"}}]}
    answered = [{"role": "tool", "content": "5"}, {"role": "assistant", "content": "It is 5."}]
    wanted = Conversation.of("2 + 3?", [Part(CALL, "sum(2, 3)"), Part(RESULT, "5"), Part(TEXT, "It is 5.")])
    assert conversation_of({"messages": [{"role": "user", "content": "2 + 3?"}, called, *answered]}, "a") == wanted
    assert conversation_of(wanted.to_json(), "a") == wanted
    said = [("human", "2 + 3?"), ("function_call", "sum(2, 3)"), ("observation", "5"), ("gpt", "It is 5.")]
    assert conversation_of({"conversations": [{"from": who, "value": text} for who, text in said]}, "a") == wanted
    assert wanted.messages[1].text == "It is 5."


def test_results_stand_behind_their_calls_and_a_call_may_wait_for_its_own():
    """The engine answers each call at once; what calls and waits for another program is kept, too."""
    calls = [{"function": {"name": "f", "arguments": each}} for each in "abc"]
    rows = [
        MESSAGES[0],
        {"role": "assistant", "content": "So.", "tool_calls": calls},
        *[{"role": "tool", "content": "1"}] * 2,
    ]
    parts = [Part(TEXT, "So."), Part(CALL, "f(a)"), Part(RESULT, "1"), Part(CALL, "f(b)"), Part(RESULT, "1")]
    waiting = Conversation.of("Hi", [*parts, Part(CALL, "f(c)")])
    assert conversation_of(rows, "a") == waiting
    assert conversation_of(waiting.to_json(), "a") == waiting
    assert chat_document(waiting, "a").conversation == waiting
    with pytest.raises(DataError, match=r"messages\[5\].role: expected a call before a tool's result"):
        conversation_of([*rows, *[{"role": "tool", "content": "1"}] * 2], "a")


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (7, "expected an object or a list of messages, received 7"),
        ({"a": 1}, "received the keys a"),
        ({"messages": 5}, "messages: expected a list"),
        ({"messages": []}, "at least one"),
        ({"messages": ["Hi"]}, r"messages\[0\]: expected an object"),
        ({"messages": [{"content": "Hi"}]}, r"messages\[0\].role"),
        ({"messages": [{"role": "king", "content": "Hi"}]}, r"messages\[0\].role: expected one of .*'king'"),
        ({"messages": [{"role": ["user"], "content": "Hi"}]}, r"messages\[0\].role"),
        ({"conversations": [MESSAGES[0], MESSAGES[0]]}, r"conversations\[1\].role: expected 'assistant'"),
        ({"messages": [MESSAGES[1]]}, r"messages\[0\].role: expected 'user'"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content: expected text, received none"),
        ({"messages": [{"role": "user", "content": None}]}, r"messages\[0\].content: expected text, received null"),
        ({"messages": [{"role": "user", "content": ""}]}, r"messages\[0\].content: expected text, received none"),
        ({"messages": [{"role": "user", "content": 5}]}, r"messages\[0\].content: expected text, received 5"),
        ({"messages": [{"role": "user", "content": 0}]}, r"messages\[0\].content: expected text, received 0"),
        ({"messages": [{"role": "user", "content": nested(900)}]}, r"messages\[0\].content\[0\]"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, r"content\[0\].type.*image_url"),
        ({"messages": [{"role": "user", "content": "\ud83d"}]}, r"messages\[0\].content: an unpaired surrogate"),
        (
            {"messages": [MESSAGES[0], {"role": "tool", "content": "5"}]},
            r"messages\[1\].role: expected a call before",
        ),
        ({"text": "a row of text"}, "expected messages, conversations, .* received the keys text"),
        (MESSAGES[0], "a single message"),
        ({"instruction": "Hi", "output": ""}, "output: expected text"),
        ({"prompt": "Hi", "completion": []}, "completion: expected text, received a list"),
        ({"prompt": [], "completion": []}, "messages: expected at least one"),
        ({"input": None, "output": "x"}, "input: expected text, received null"),
    ],
)
def test_what_is_no_conversation_is_refused_in_one_line(row, complaint):
    with pytest.raises(DataError, match=complaint) as refused:
        conversation_of(row, "chats.jsonl, line 3")
    assert str(refused.value).startswith("chats.jsonl, line 3: ")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_question_that_nobody_has_answered_is_dropped_and_counted_and_one_alone_refused():
    assert chat_document(Conversation.of("Hi", "Hello.", "And?"), "a").conversation == HI
    own = corpus_of_conversations([HI, Conversation.of("Hi", "Hello.", "And?")], "own")
    assert tokenize(own, BPETokenizer.from_merges([])).notes == ("own: left out 1 question that nobody has answered",)
    with pytest.raises(DataError, match="a, line 2: expected an answer"):
        chat_document(Conversation.of("Hi"), "a, line 2")
    with pytest.raises(DataError, match="a, line 2: expected an answer"):
        chat_document(Conversation.of("Hi", system="Be kind."), "a, line 2")
    with pytest.raises(DataError, match="unpaired surrogate"):
        chat_document(Conversation.of("Hi \ud83d", "Hello."), "a")
