"""What the tutor teaches is right, and nothing of it is what tasks ask."""

from __future__ import annotations

import re
from itertools import islice
from random import Random

import pytest

from tinygrad_chat.text.conversations import CALL, RESULT, TEXT
from tinygrad_chat.text.embedded import CORPORA, is_held_out
from tinygrad_chat.text.embedded.arithmetic import Arithmetic
from tinygrad_chat.text.embedded.phrasings import data_file
from tinygrad_chat.text.embedded.spelling import Spelling
from tinygrad_chat.text.embedded.vocabulary import any_word, real_words
from tinygrad_chat.tools import calculate

SOME = 1500


def some(count: int = SOME, seed: int = 0):
    return list(islice(CORPORA["tutor"].conversations(seed), count))


def test_the_seed_decides_the_conversations():
    assert some(50) == some(50)
    assert some(50) != some(50, seed=1)


def test_each_call_is_answered_by_the_calculator_and_its_result_is_said():
    answers = [message for chat in some() for message in chat.messages[1::2]]
    called = [message for message in answers if len(message.parts) > 1]
    assert len(called) > SOME / 2
    for message in called:
        call, result, text = message.parts
        assert (call.kind, result.kind, text.kind) == (CALL, RESULT, TEXT)
        assert result.text == calculate(call.text)
        assert not result.text.startswith("error"), call.text
        assert result.text in text.text


def test_words_are_spelled_letter_by_letter():
    spelled = [Spelling(Random(seed)).spell() for seed in range(300)]
    for lesson in spelled:
        assert lesson.word in lesson.question
        assert lesson.answer.replace("-", "") == lesson.word
        assert lesson.parts[0].text == lesson.answer


def test_letters_are_counted_and_turned_around_by_what_was_spelled():
    spelling = Spelling(Random(0))
    for _ in range(100):
        first = spelling.spell()
        word = first.word
        assert spelling._backwards("backwards", word).answer == "-".join(reversed(word))
        assert spelling._length("length", word).answer == str(len(word))
        counted = spelling._letter("letter", word)
        letter = re.fullmatch(r".*count\('(.)'\)", counted.parts[0].text)
        assert letter
        assert counted.answer == str(word.lower().count(letter[1]))
        assert spelling.then(first).word == word


@pytest.mark.parametrize(
    ("expression", "spoken"), [("12+7", "12 plus 7"), ("12*7", "12 x 7"), ("84/7", "84 divided by 7"), ("9-7", "9-7")]
)
def test_sums_are_asked_in_signs_and_in_words(expression: str, spoken: str):
    arithmetic = Arithmetic(Random(0))
    assert spoken in {arithmetic._spoken(expression) for _ in range(100)}


@pytest.mark.profile("ci")
def test_what_is_held_out_is_never_trained_on():
    calls = [part.text for chat in some() for message in chat.messages for part in message.parts if part.kind == CALL]
    sums = [call for call in calls if "'" not in call]
    assert len(sums) > 500
    assert not [each for each in sums if is_held_out(each)]
    spelled = re.findall(r"\b(?:\w-)+\w\b", " ".join(message.text for chat in some() for message in chat.messages))
    forwards = {letters.replace("-", "") for letters in spelled if not letters[0].isdigit()}
    turned = {call.split("'")[1].replace("-", "")[::-1] for call in calls if call.endswith("[::-1]")}
    assert len(forwards) > 500
    assert not [word for word in forwards - turned if is_held_out(word)]


def test_tasks_are_given_what_is_held_out():
    arithmetic, spelling = Arithmetic(Random(0), held_out=True), Spelling(Random(0), held_out=True)
    for lesson in [draw() for draw in (arithmetic.sum, arithmetic.story, arithmetic.unit) for _ in range(30)]:
        assert is_held_out(lesson.parts[0].text)
        assert is_held_out(arithmetic.then(lesson).parts[0].text)
    assert all(is_held_out(spelling.spell().word) for _ in range(50))


def test_real_words_are_on_one_side():
    assert not set(real_words(True)) & set(real_words(False))
    assert {"strawberry", "banana", "elephant", "python"} <= {*real_words(True), *real_words(False)}
    words = {any_word(Random(seed)) for seed in range(1000)}
    assert len(words) > 900


def test_there_are_twelve_phrasings_of_everything_and_others_for_tasks():
    for kind, section in data_file("tutor").items():
        if isinstance(section, dict) and "asked" in section:
            assert len(set(section["asked"])) >= 12, kind
            assert len(section["held_out"]) >= 3, kind
            assert not set(section["asked"]) & set(section["held_out"]), kind
