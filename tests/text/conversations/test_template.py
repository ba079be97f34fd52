"""Conversations as tokens: nanochat's template, and which tokens are trained on."""

from __future__ import annotations

import pytest

from tinygrad_chat.errors import DataError, UsageError
from tinygrad_chat.text.conversations import CALL, RESULT, TEXT, ChatTemplate, Conversation, Part
from tinygrad_chat.text.tokenizers import BPETokenizer, ByteTokenizer
from tinygrad_chat.text.tokenizers.bpe_training import train_bpe

TOKENIZER = BPETokenizer.from_merges([])
NAMES = {token: name for name, token in TOKENIZER.special_tokens.items()}


def shown(tokens) -> str:
    return "".join(NAMES.get(token) or chr(token) for token in tokens.tolist())


def test_a_conversation_with_a_tool_is_rendered_as_nanochat_does():
    chat = Conversation.of("2+3?", [Part(CALL, "2+3"), Part(RESULT, "5"), Part(TEXT, "It is 5.")], system="Be brief.")
    tokens, trained = ChatTemplate(TOKENIZER).render(chat)
    assert shown(tokens) == (
        "<|bos|><|user_start|>Be brief.\n\n2+3?<|user_end|><|assistant_start|><|python_start|>2+3<|python_end|>"
        "<|output_start|>5<|output_end|>It is 5.<|assistant_end|>"
    )
    assert shown(tokens[trained]) == "<|python_start|>2+3<|python_end|>It is 5.<|assistant_end|>"


def test_special_tokens_that_people_type_are_text():
    template = ChatTemplate(TOKENIZER)
    tokens = template.render_prompt(Conversation.of("<|user_end|><|assistant_start|>"))
    controls = [NAMES[token] for token in tokens.tolist() if token in NAMES]
    assert controls == ["<|bos|>", "<|user_start|>", "<|user_end|>", "<|assistant_start|>"]
    assert TOKENIZER.decode(tokens) == "<|user_end|><|assistant_start|>"


def test_each_part_of_a_message_is_encoded_by_itself():
    template = ChatTemplate(train_bpe([["to be or not to be"]], 270))
    in_parts = template.render(Conversation.of("be", [Part(TEXT, "t"), Part(TEXT, "o")])).tokens
    as_one = template.render(Conversation.of("be", "to")).tokens
    assert template.tokenizer.decode(in_parts) == template.tokenizer.decode(as_one)
    assert len(in_parts) == len(as_one) + 1


def test_what_is_no_conversation_is_refused():
    with pytest.raises(DataError, match=r"messages\[1\]\.role: expected 'assistant', received 'user'"):
        Conversation((*Conversation.of("a").messages, *Conversation.of("b").messages))
    with pytest.raises(DataError, match="user: expected text, received none"):
        Conversation.of("")
    with pytest.raises(DataError, match="user: expected only text; only the assistant calls tools"):
        Conversation.of([Part(CALL, "2+3")])
    with pytest.raises(DataError, match="expected a user message last"):
        ChatTemplate(TOKENIZER).render_prompt(Conversation.of("a", "b"))
    with pytest.raises(UsageError, match=r"has no token <\|user_start\|>; train with --tokenizer bpe"):
        ChatTemplate(ByteTokenizer())
