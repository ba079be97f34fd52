"""Questions that held-out conversations begin with, and answers to them as a run's sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tinygrad_chat
from tests.interchange.models import with_chatml
from tests.models.table_model import certain, table_model
from tinygrad_chat import Dataset
from tinygrad_chat.inference.answers import answers_as_text, first_questions
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.text.conversations import ChatTemplate, Conversation
from tinygrad_chat.text.tokenizers import BPETokenizer, ByteTokenizer

TOKENIZER = BPETokenizer.from_merges([])
START, END = ChatTemplate(TOKENIZER).around("assistant")


def tokens_of(*conversations: Conversation) -> np.ndarray:
    return np.concatenate([ChatTemplate(TOKENIZER).render(each).tokens for each in conversations])


def asked(*texts: np.ndarray, most: int = 3) -> list[str]:
    known = [(tokens, None) for tokens in texts]
    return [question.messages[0].text for question in first_questions(known, TOKENIZER, most)]


LONG = tokens_of(Conversation.of("one?", "1", "and more?", "2"), Conversation.of("two?", "2", system="Short."))


def test_questions_are_the_first_of_each_conversation_from_each_text_as_many():
    assert asked(LONG) == ["one?", "Short.\n\ntwo?"]
    assert asked(LONG, tokens_of(Conversation.of("three?", "3"))) == ["one?", "three?"]
    assert asked(LONG, LONG, LONG, LONG) == ["one?"] * 3
    assert asked(LONG[1:]) == ["Short.\n\ntwo?"]  # what is cut does not begin
    assert asked(LONG[:4]) == []  # nor end


def test_a_text_has_no_questions():
    assert asked(TOKENIZER.encode("<|bos|><|user_start|>one?<|user_end|>")) == []
    assert first_questions([(np.arange(99), None)], ByteTokenizer(), 3) == []


@pytest.mark.parametrize("pattern", ["smollm2", "qwen2"])
def test_questions_are_found_in_the_template_of_another_program(pattern: str):
    tokenizer = with_chatml(pattern)
    template = ChatTemplate(tokenizer)
    chats = [
        Conversation.of("\none? ", "1", "and more?", "2"),
        Conversation.of("two?", "2", system=" Short.\n"),
        Conversation.of("<|im_end|>?", "3"),
    ]
    rendered = [template.render(each).tokens for each in chats]
    starts = np.cumsum([0, *map(len, rendered)])[:-1]
    found = first_questions([(np.concatenate(rendered), starts)], tokenizer, 3)
    assert found == [Conversation(each.messages[: 2 if each.messages[0].role == "system" else 1]) for each in chats]
    assert template.first_question(rendered[0][1:]) is None
    assert template.first_question(rendered[0][:6]) is None


def test_an_answer_stands_below_its_question():
    following = {START: ord("y"), ord("y"): END}
    engine = Engine(table_model(certain(TOKENIZER.size, following), context=64), TOKENIZER)
    questions = [Conversation.of("a?"), Conversation.of("b" * 99)]
    assert answers_as_text(engine, questions) == f"> a?\ny\n\n> {'b' * 99}\n"


def test_the_sample_of_a_run_on_conversations_is_its_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    data = Dataset.from_tokens(np.tile(LONG, 40), context=32)
    tiny = {"model": "bigram", "width": 8, "context": 32, "batch_size": 2, "steps": 2, "eval_every": 2}
    tinygrad_chat.train(data, tokenizer=TOKENIZER, out="run", **tiny)
    for sample in Path("run/samples").iterdir():
        assert sample.read_text(encoding="utf-8", errors="replace").startswith("> one?\n")
        assert "\n\n> Short.\n\ntwo?\n" in sample.read_text(encoding="utf-8", errors="replace")
