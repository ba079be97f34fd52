"""Other programs render the same tokens by our Jinja template."""

import functools

import jinja2
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.text.conversations import CALL, RESULT, TEXT, ChatTemplate, Conversation, Part
from tinygrad_chat.text.conversations.jinja import chat_template
from tinygrad_chat.text.tokenizers.bpe_training import train_bpe


@functools.cache
def template() -> ChatTemplate:
    return ChatTemplate(train_bpe([["to be or not to be, that is"]], 280))


texts = st.text(st.sampled_from("to be,\n'\"{}%é😀"), min_size=1, max_size=12)
tools = st.tuples(texts, texts, texts).map(
    lambda each: [Part(TEXT, "So "), Part(CALL, each[0]), Part(RESULT, each[1]), Part(TEXT, each[2])]
)
chats = st.builds(
    lambda turns, system: Conversation.of(*(each for turn in turns for each in turn), system=system),
    st.lists(st.tuples(texts, texts | tools), min_size=1, max_size=4),
    st.none() | texts,
)


def encoded(text):
    """Encode a text whose special tokens are written by their names."""
    tokenizer, tokens = template().tokenizer, []
    while text:
        found = [(at, name) for name in tokenizer.special_tokens if (at := text.find(name)) >= 0]
        at, name = min(found, default=(len(text), ""))
        tokens += tokenizer.encode(text[:at]).tolist()
        tokens += [tokenizer.special_tokens[name]] if name else []
        text = text[at + len(name) :]
    return tokens


@given(chats)
def test_it_renders_token_for_token_what_is_trained_on(conversation):
    jinja = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(
        chat_template()
    )  # as transformers does
    text = jinja.render(messages=conversation.to_json()["messages"])
    assert encoded(text) == template().render(conversation).tokens.tolist()


def test_it_asks_for_an_answer():
    conversation = Conversation.of("to be?")
    jinja = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(chat_template())
    text = jinja.render(messages=conversation.to_json()["messages"], add_generation_prompt=True)
    assert encoded(text) == template().render_prompt(conversation).tolist()
