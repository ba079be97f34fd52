"""Conversations in rows: each answer that can be trained is trained once, and no row without one."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.interchange.models import with_chatml
from tinygrad_chat.errors import DataError
from tinygrad_chat.ops.cross_entropy import IGNORED
from tinygrad_chat.text.conversations import ChatTemplate, Conversation
from tinygrad_chat.text.conversations.windows import (
    NO_BEGINNING,
    NO_END,
    NO_QUESTION,
    NO_SYSTEM,
    OF_SYSTEM,
    TRAINED,
    ConversationRows,
    cut_at_turns,
    fit_whole,
)
from tinygrad_chat.text.tokenizers.bpe_training import train_bpe


@functools.cache
def template() -> ChatTemplate:
    return ChatTemplate(train_bpe([["to be or not to be"]], 270))


def laid_out(conversations):
    tokens, marks, starts = [], [], []
    for conversation in conversations:
        starts.append(len(tokens))
        rendered = template().render(conversation)
        system = np.arange(len(rendered.tokens)) < template().count_system_tokens(conversation)
        system[0] = False  # as a store has it: BOS bears no mark
        tokens += rendered.tokens.tolist()
        marks += (rendered.trained * TRAINED + system * OF_SYSTEM).tolist()
    return np.array(tokens), np.array(marks, np.uint8), np.array(starts)


texts = st.text("to be", min_size=1, max_size=25)
chats = st.builds(
    lambda turns, system: Conversation.of(*(text for turn in turns for text in turn), system=system),
    st.lists(st.tuples(texts, texts), min_size=1, max_size=6),
    st.none() | texts,
)


@pytest.mark.parametrize(
    ("said", "system", "losses"),
    [
        (["to", "be", "to", "be"] * 20, None, ""),
        (["to", "be", "to", "be"] * 20, "be", ""),
        (["to", "be", "to", "be"] * 20, "to be " * 9, "; windows without the system message: 20"),
        (["to " * 40, "be"], None, "; questions without their beginning: 1"),
        (["to " * 40, "be"], "be", "; questions without their beginning: 1"),
        (["to", "be"], "to be " * 40, "; windows without the system message: 1"),
        (["to", "be " * 40], None, "; questions left out: 1, answers without their end: 1"),
        (
            ["to " * 40, "be", "to", "be " * 40, "to " * 40, "be"],
            None,
            "; questions left out: 1, questions without their beginning: 2, answers without their end: 1",
        ),
    ],
)
def test_what_is_lost_of_a_long_conversation_is_counted_and_said(said, system, losses):
    cut = Conversation.of(*said, system=system)
    tokens, marks, starts = laid_out([cut, Conversation.of("to", "be")])
    rows = ConversationRows(tokens, marks, starts, template=template(), context=32, seed=3)
    assert rows.note == f"cut 1 conversation longer than the context of 32 tokens{losses}"
    assert ConversationRows(tokens, marks, starts, template=template(), context=400, seed=3).note == ""


def test_a_conversation_that_just_fits_is_whole():
    tokens, marks, starts = laid_out([Conversation.of("to be or not", "to be")])
    fits = len(tokens) - 1  # the last token is only a target
    assert ConversationRows(tokens, marks, starts, template=template(), context=fits, seed=3).note == ""
    assert "cut 1" in ConversationRows(tokens, marks, starts, template=template(), context=fits - 1, seed=3).note


def test_the_longest_that_fits_into_the_rest_of_a_row_comes_next():
    assert fit_whole([5, 1, 4, 3, 2], 6) == [[0, 1], [2, 4], [3]]


@given(chats, st.integers(9, 40))
def test_what_is_not_said_to_be_lost_is_there(conversation, room):
    tokens, marks, _ = laid_out([conversation])
    if len(tokens) <= room:
        return
    windows = cut_at_turns(tokens, marks, template(), room)
    system, turns = (
        (marks & OF_SYSTEM) != 0,
        np.append(np.flatnonzero(tokens == template().around("user")[0]), len(tokens)),
    )
    for prefix, start, trained_from, stop, lost in windows:
        held = np.append(np.arange(prefix), np.arange(start, stop))
        assert (set(np.flatnonzero(system)) <= set(held)) == (NO_SYSTEM not in lost)
        question = np.arange(trained_from + 1, turns[turns > trained_from][0])
        question = question[: np.flatnonzero(tokens[question] == template().around("assistant")[0])[0]]
        there = np.isin(question[~system[question]], held)
        assert there.all() == (NO_QUESTION not in lost and NO_BEGINNING not in lost)
        assert there.any() == (NO_QUESTION not in lost)
        assert (stop in turns) == (NO_END not in lost)


@given(st.lists(chats, min_size=1, max_size=6), st.integers(8, 60))
def test_every_answer_that_fits_is_trained_once_and_no_row_is_empty(conversations, context):
    tokens, marks, starts = laid_out(conversations)
    rows = ConversationRows(tokens, marks, starts, template=template(), context=context, seed=3)
    inputs, targets = rows.take(0, rows.rows)
    assert inputs.shape == targets.shape == (rows.rows, context)
    assert (targets != IGNORED).any(axis=1).all()

    start, end = template().around("assistant")
    most = context + 1 - 2 - 1  # beside BOS, the user's beginning and the assistant's
    due = []
    for conversation in conversations:
        for message in conversation.messages:
            if message.role == "assistant":
                answer = [*template().tokenizer.encode(message.text).tolist(), end]
                due.append(answer[:most])
    trained = []
    for line, wanted in zip(inputs, targets, strict=True):
        for place in np.flatnonzero((line == start) & (wanted != IGNORED)):
            rest = wanted[place:]
            stop = np.flatnonzero(rest == IGNORED)
            trained.append(rest[: stop[0] if len(stop) else None].tolist())
    assert sorted(trained) == sorted(due)


@given(chats, st.integers(9, 40))
def test_a_cut_conversation_goes_on_with_its_system_message_and_its_latest_turns(conversation, room):
    tokens, marks, _ = laid_out([conversation])
    if len(tokens) <= room:
        return
    for prefix, start, trained_from, stop, _ in cut_at_turns(tokens, marks, template(), room):
        assert prefix + stop - start <= room
        assert ((marks[max(start, trained_from) : stop] & TRAINED) != 0).any()
        held = np.append(tokens[:prefix], tokens[start:stop])
        assert held[:2].tolist() == tokens[:2].tolist()  # BOS, and a user begins
        assert (held == template().around("assistant")[0]).any()
        system = int(((marks & OF_SYSTEM) != 0).sum())
        if prefix > 2:
            assert prefix == system + 1


def test_turns_overlap():
    conversation = Conversation.of(*["to be"] * 40)
    tokens, marks, _ = laid_out([conversation])
    windows = cut_at_turns(tokens, marks, template(), len(tokens) // 3)
    assert len(windows) > 3
    assert all(window.start < window.trained_from for window in windows[1:])  # earlier turns are read


def test_rows_are_shuffled_anew_in_each_epoch_and_hold_the_same():
    tokens, marks, starts = laid_out([Conversation.of("to " * n, "be " * n) for n in range(1, 9)] * 4)
    rows = ConversationRows(tokens, marks, starts, template=template(), context=40, seed=3)
    (first, _), (second, _) = rows.take(0, rows.rows), rows.take(rows.rows, rows.rows)
    assert not np.array_equal(first, second)
    assert sorted(map(tuple, first.tolist())) == sorted(map(tuple, second.tolist()))
    again = ConversationRows(tokens, marks, starts, template=template(), context=40, seed=3)
    assert np.array_equal(again.take(rows.rows, rows.rows)[0], second)


def test_a_context_too_short_for_a_question_and_an_answer_is_refused():
    tokens, marks, starts = laid_out([Conversation.of("to", "be")])
    with pytest.raises(Exception, match="--context"):
        ConversationRows(tokens, marks, starts, template=template(), context=4, seed=0)
    with pytest.raises(DataError, match="at least one"):
        ConversationRows(tokens[:0], marks[:0], starts[:0], template=template(), context=16, seed=0)


def test_ten_thousand_turns_are_cut_as_few_are():
    tokens, marks, _ = laid_out([Conversation.of(*["to", "be"] * 10_000)])
    windows = cut_at_turns(tokens, marks, template(), 65)
    trained = [marks[max(window.start, window.trained_from) : window.stop] & TRAINED for window in windows]
    assert sum(map(np.count_nonzero, trained)) == np.count_nonzero(marks & TRAINED)
    assert max(window.inputs for window in windows) <= 64
    assert len({window.stop - window.trained_from for window in windows[1:-1]}) == 1  # each goes as far as the next


def test_a_huge_message_is_one_row_on_either_side():
    question, answer = ["to " * 100_000, "be"], ["to", "be " * 100_000]
    for said, inputs in ((question, 64), (answer, 64)):
        tokens, marks, _ = laid_out([Conversation.of(*said)])
        [window] = cut_at_turns(tokens, marks, template(), 65)
        assert window.inputs == inputs
        assert (marks[window.start : window.stop] & TRAINED).any()


@pytest.mark.parametrize("system", [None, "Be brief."])
def test_a_conversation_in_another_template_is_cut_at_its_turns(system: str | None):
    template = ChatTemplate(with_chatml("qwen2"))
    said = [f"{word} {number} to be or not" for number in range(12) for word in ("question", "answer")]
    conversation = Conversation.of(*said, system=system)
    tokens, trained = template.render(conversation)
    marks = trained * TRAINED
    marks[: template.count_system_tokens(conversation)] += OF_SYSTEM
    marks[0] = 0
    windows = cut_at_turns(tokens, marks, template, 100)
    learned = np.zeros(len(tokens), int)
    for window in windows:
        assert window.inputs < 100
        places = np.append(np.arange(window.prefix), np.arange(window.start, window.stop))
        learned[places[places >= window.trained_from]] += trained[places[places >= window.trained_from]]
        if window.prefix:
            beginning = template.tokenizer.decode(tokens[window.start : window.start + 10])
            assert beginning.startswith("question")
            before_first = template.borders(tokens, with_system=False)[0][0] + 1
            assert window.prefix == (before_first if system is None else template.count_system_tokens(conversation))
    np.testing.assert_array_equal(learned, trained)
    assert len(windows) > 2
