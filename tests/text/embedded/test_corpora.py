"""What is trained on: the same for a seed, of the right make-up, and without what tasks ask."""

from itertools import islice
from random import Random

import pytest

from tinygrad_chat.tasks import open_task
from tinygrad_chat.text.conversations import CALL, RESULT, TEXT
from tinygrad_chat.text.embedded import CORPORA, is_held_out
from tinygrad_chat.text.embedded.documented import documented
from tinygrad_chat.text.embedded.made_up import known_names, made_up_name
from tinygrad_chat.text.embedded.phrasings import Phrasing, data_file, one_letter_wrong, plain, within_another, words
from tinygrad_chat.text.embedded.questions import REFUSAL, PythonQuestions, argument_of, arguments_of, module_of

SOME = 1500
RECALLED = ("python", "reverse", "unknown", "known", "turns")


def some(name: str, seed: int = 0, count: int = SOME):
    return list(islice(CORPORA[name].conversations(seed), count))


@pytest.mark.parametrize("name", ["python", "self"])
def test_the_seed_decides_the_conversations(name):
    assert some(name, count=50) == some(name, count=50)
    assert some(name, count=50) != some(name, seed=1, count=50)
    assert all(chat.ends_with_answer for chat in some(name))


def test_about_two_fifths_of_python_are_refused():
    answers = [message.text for chat in some("python") for message in chat.messages[1::2]]
    assert 0.35 < answers.count(REFUSAL) / len(answers) < 0.45


def test_an_answer_to_what_a_name_does_is_its_sentence():
    sentences = {each.sentence for each in documented().values()}
    answers = {message.text for chat in some("python") for message in chat.messages[1::2]}
    assert len(answers & sentences) > 300


def every_list(section):
    if isinstance(section, dict) and "held_out" in section:
        yield section["asked"], section["held_out"]
    elif isinstance(section, dict | list):
        for each in section.values() if isinstance(section, dict) else section:
            yield from every_list(each)


@pytest.mark.parametrize("file", ["phrasings", "talk"])
def test_there_are_twelve_phrasings_of_everything_and_none_that_is_held_out_is_among_them(file):
    lists = list(every_list(data_file(file)))
    assert len(lists) > 7
    every_asked = {phrasing for asked, _ in lists for phrasing in asked}
    for asked, held_out in lists:
        assert len(asked) >= 12, asked[0]
        assert len(held_out) >= 2, asked[0]
        assert not every_asked & set(held_out)


def test_a_question_stands_within_another():
    assert "Could you explain {} to me." in within_another("Explain {} to me.")
    assert "Do you know what {} is?" in within_another("What is {}?")
    assert within_another("What is {} used for?") == ["What is {} used for?"]


@pytest.mark.parametrize("file", ["phrasings", "talk", "tutor"])
def test_what_is_held_out_is_never_asked_with_other_words_or_within_another_question(file):
    lists = [{"asked": asked, "held_out": held_out} for asked, held_out in every_list(data_file(file))]
    phrasing = Phrasing(Random(1), file=file)
    asked = {plain(phrasing.ask_one_of(each)) for each in lists for _ in range(400)}
    assert len(asked) > 800
    assert not asked & {plain(held_out) for each in lists for held_out in each["held_out"]}


def test_a_phrasing_may_have_alternatives():
    drawn = {plain(Phrasing(Random(seed)).ask_one_of({"asked": ["[A|B] c?"], "held_out": []})) for seed in range(99)}
    assert {"a c", "b c"} <= drawn


def test_no_answer_of_small_talk_depends_on_more_than_what_is_said():
    said = [phrasing for asked, held_out in every_list(data_file("talk")) for phrasing in asked + held_out]
    assert len(said) == len(set(said))


@pytest.mark.profile("ci")
@pytest.mark.parametrize("name", RECALLED)
def test_what_tasks_ask_is_not_trained_on(name):
    trained = {chat.messages[-2].text for each in ("python", "self") for chat in some(each)}
    asked = [problem.question.messages[-1].text for problem in open_task(name).problems(200, seed=0)]
    assert len(asked) == 200
    assert not trained & set(asked)


@pytest.mark.parametrize("held_out", [False, True])
def test_no_name_that_there_is_is_refused(held_out, monkeypatch):
    """Of dict.split, which there is not, `split` alone is a method of str."""
    written = set()
    monkeypatch.setattr(PythonQuestions, "_form", lambda _, name, home, last: written.update((name, last)) or name)
    questions = PythonQuestions(Random(4), held_out)
    for _ in range(1000):
        questions.unknown()
    assert len(written) > 300
    assert not {name.lower() for name in written} & known_names()


def test_made_up_names_are_not_documented_and_tasks_have_their_own():
    random = Random(0)
    trained = {made_up_name(random) for _ in range(2000)}
    asked = {made_up_name(random, held_out=True) for _ in range(300)}
    assert len(trained) > 1900
    assert len(asked) > 280
    assert not trained & asked
    assert not {name.lower() for name in trained | asked} & known_names()
    assert all(is_held_out(name) for name in asked)


def test_topics_that_are_held_out_are_some_of_each_list():
    for kind in ("thing", "place", "person", "food", "action"):
        ours, theirs = words(kind, False), words(kind, True)
        assert theirs
        assert len(ours) > 5 * len(theirs)
        assert not set(ours) & set(theirs)


@pytest.mark.parametrize("seed", range(20))
def test_a_wrong_letter_leaves_the_first_one(seed):
    wrong = one_letter_wrong("python", Random(seed))
    assert wrong[0] == "p"
    assert abs(len(wrong) - 6) <= 1


def test_answers_about_arguments_and_modules():
    known = documented()
    assert arguments_of(known["str.split"]) == "str.split takes 2 arguments: sep, maxsplit."
    assert arguments_of(known["list.append"]) == "list.append takes 1 argument: object."
    assert arguments_of(known["str.upper"]) == "str.upper takes no arguments."
    assert argument_of(known["str.split"], 1) == "Its second argument is maxsplit."
    assert argument_of(known["str.split"], 2) == "It takes only 2 arguments."
    assert argument_of(known["str.upper"], 0) == "It takes no arguments."
    assert module_of(known["math.sqrt"]) == "sqrt is in the module math."
    assert module_of(known["str.split"]) == "split is a method of str, which is built in."
    assert module_of(known["len"]) == "len is built in."


def test_a_name_alone_means_one_thing():
    questions = PythonQuestions(Random(0))
    meant: dict[str, str] = {}
    for _ in range(3000):
        known = questions.any_known()
        written = questions._written(known)
        assert meant.setdefault(written, known.name) == known.name, written
    for name in ("str.split", "sorted", "math.sqrt"):
        known = documented()[name]
        assert known.last_name in {questions._written(known) for _ in range(60)}, name


def test_figures_are_copied_from_the_calculator():
    called = [message for chat in some("self") for message in chat.messages if len(message.parts) > 1]
    figures = [message for message in called if message.parts[0].text.isidentifier()]
    assert len(figures) > 100
    for message in figures:
        call, result, text = message.parts
        assert (call.kind, result.kind, text.kind) == (CALL, RESULT, TEXT)
        assert result.text in text.text
    assert {message.parts[0].text for message in figures} == {each["name"] for each in data_file("talk")["figure"]}


def test_one_conversation_asks_for_this_and_that():
    calls = [part for chat in some("self") for message in chat.messages for part in message.parts if part.kind == CALL]
    assert any(call.text.isidentifier() for call in calls)
    assert sum(not call.text.isidentifier() for call in calls) > 50  # sums and words of the tutor's
    assert any(REFUSAL in message.text for chat in some("self") for message in chat.messages)


def test_the_name_that_was_told_last_is_remembered():
    remembered = 0
    for chat in some("self"):
        told = ""
        for text in (message.text for message in chat.messages[1::2]):
            if text.startswith("Nice to meet you, "):
                told = text.removeprefix("Nice to meet you, ")
            elif text.startswith("Your name is "):
                assert text.removeprefix("Your name is ") == told
                remembered += 1
    assert remembered > 30
