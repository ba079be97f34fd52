"""The API answers as OpenAI's does: the same shapes, the same errors; and what it says is what the engine says."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")

from tests.cli.chatting import CALL, TOKENIZER
from tests.serving.asking import CONTEXT, asking, chat, events_of, scripted, served
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.runs.sampling import Sampling
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.tokenizers import CharacterTokenizer

CHATS, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def test_an_answer_is_what_the_engine_says_and_is_counted():
    one = served()
    request = one.engine.submit_answer(
        Conversation.of("hi"), GenerationOptions(max_new_tokens=9, temperature=1, seed=5)
    )
    said = "".join(step.text for step in one.engine.stream(request))
    with asking() as client:
        found = client.post(CHATS, json=chat(seed=5, max_tokens=9, temperature=1)).json()
    assert found["object"] == "chat.completion"
    assert found["model"] == "tiny"
    assert found["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": said, "refusal": None},
            "logprobs": None,
            "finish_reason": request.finish_reason,
        }
    ]
    read = len(one.engine.template.render_prompt(Conversation.of("hi")))
    written = len(request.tokens)
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    assert found["usage"] == usage


def test_a_stream_says_the_same_in_pieces():
    asked = chat(max_tokens=9, n=2, logprobs=True, top_logprobs=2)
    with asking() as client:
        whole = client.post(CHATS, json=asked).json()
        answer = client.post(CHATS, json={**asked, "stream": True, "stream_options": {"include_usage": True}})
        assert answer.headers["content-type"].startswith("text/event-stream")
        *chunks, usage = events_of(answer.text)
        plain = events_of(client.post(CHATS, json={**asked, "stream": True}).text)
    assert usage["choices"] == []
    assert usage["usage"] == whole["usage"]
    assert all("usage" not in chunk for chunk in plain)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    for index, choice in enumerate(whole["choices"]):
        own = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == index]
        assert own[0]["delta"] == {"role": "assistant", "content": ""}
        assert own[-1]["delta"] == {}
        assert own[-1]["finish_reason"] == choice["finish_reason"]
        assert all(each["finish_reason"] is None for each in own[:-1])
        assert "".join(each["delta"].get("content", "") for each in own) == choice["message"]["content"]
        scores = [score for each in own if each["logprobs"] for score in each["logprobs"]["content"]]
        expected = choice["logprobs"]["content"]
        assert [score["token"] for score in scores] == [score["token"] for score in expected]
        logprobs = [score["logprob"] for score in expected]  # those of tokens that were read before round otherwise
        assert [score["logprob"] for score in scores] == pytest.approx(logprobs, rel=1e-9)


def test_answers_to_one_request_differ_and_a_seed_repeats_them():
    with asking() as client:
        first, again = (client.post(CHATS, json=chat(max_tokens=9, n=3, temperature=1)).json() for _ in range(2))
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert len(set(texts)) == 3
    assert [choice["message"]["content"] for choice in again["choices"]] == texts


def test_a_request_that_does_not_say_how_to_draw_draws_as_the_model_s_makers_would():
    careful = dataclasses.replace(served(), sampling=Sampling(temperature=0.0, top_p=0.0001, min_p=1.0))
    with asking(careful) as client:

        def texts(**asked: Any) -> set[str]:
            found = client.post(CHATS, json=chat(max_tokens=9, n=4, **asked)).json()
            return {choice["message"]["content"] for choice in found["choices"]}

        assert len(texts()) == 1
        assert len(texts(temperature=2)) == 1
        assert len(texts(temperature=2, top_p=1)) == 1
        assert len(texts(temperature=2, top_p=1, min_p=0)) == 4


def test_log_probabilities_have_the_bytes_of_half_characters():
    with asking(scripted(hi="é")) as client:
        asked = chat(temperature=0, logprobs=True, top_logprobs=1)
        scores = client.post(CHATS, json=asked).json()["choices"][0]["logprobs"]["content"]
    assert [score["token"] for score in scores] == ["bytes:\\xc3", "bytes:\\xa9"]
    assert bytes(byte for score in scores for byte in score["bytes"]).decode() == "é"
    assert math.exp(scores[0]["logprob"]) == pytest.approx(8 / 9, abs=1e-3)
    assert scores[0]["top_logprobs"] == [{key: scores[0][key] for key in ("token", "logprob", "bytes")}]


def test_stops_end_an_answer_before_them():
    with asking(scripted(hi="one two three four")) as client:
        found = client.post(CHATS, json=chat(temperature=0, stop=["four", " three"])).json()["choices"][0]
        streamed = events_of(client.post(CHATS, json=chat(temperature=0, stop=" three", stream=True)).text)
    assert (found["message"]["content"], found["finish_reason"]) == ("one two", "stop")
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in streamed) == "one two"


def test_the_calculator_is_run_by_the_server_and_shown_beside_the_answer():
    with asking(scripted(**{"347*28?": CALL})) as client:
        asked = chat("347*28?", temperature=0)
        message = client.post(CHATS, json=asked).json()["choices"][0]["message"]
        chunks = events_of(client.post(CHATS, json={**asked, "stream": True}).text)
    assert message["content"] == "It is 9716."
    assert message["parts"] == [
        {"type": "python", "text": "347*28"},
        {"type": "python_output", "text": "9716"},
        {"type": "text", "text": "It is 9716."},
    ]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta["part"]["text"] for delta in deltas if "part" in delta) == "347*289716"
    assert "".join(delta.get("content", "") for delta in deltas) == "It is 9716."


def test_tool_choice_none_turns_the_calculator_off():
    with asking(scripted(**{"347*28?": CALL})) as client:
        asked = chat("347*28?", temperature=0, tool_choice="none", max_tokens=3)
        assert "parts" not in client.post(CHATS, json=asked).json()["choices"][0]["message"]


def test_messages_are_read_as_openai_s_clients_write_them():
    one = scripted(hi="Yes.")
    messages = [
        {"role": "system", "content": "Be"},
        {"role": "developer", "content": [{"type": "text", "text": "brief."}]},
        {"role": "user", "content": "a", "name": "Ada"},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": [{"type": "python", "text": "1"}, {"type": "python_output", "text": "2"}]},
        {"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]},
    ]
    with asking(one) as client:
        assert client.post(CHATS, json=chat(messages=messages, user="x", store=True)).status_code == 200
    assert one.engine.model.seen == [  # pyright: ignore[reportAttributeAccessIssue]
        "<|bos|><|user_start|>Be\n\nbrief.\n\na\n\nb<|user_end|><|assistant_start|><|python_start|>1<|python_end|>"
        "<|output_start|>2<|output_end|><|assistant_end|><|user_start|>hi<|user_end|><|assistant_start|>"
    ]


def test_names_of_special_tokens_in_messages_are_text():
    names, one = "".join(TOKENIZER.special_tokens), scripted()
    call = [{"type": "python", "text": names}, {"type": "python_output", "text": names}]
    roles = {"system": names, "user": names, "assistant": call}
    messages = [*({"role": role, "content": each} for role, each in roles.items()), {"role": "user", "content": names}]
    model: Any = one.engine.model
    model.context = 1000
    with asking(one) as client:
        assert client.post(CHATS, json=chat(messages=messages)).status_code == 200
    again = ["<|user_start|>", "<|user_end|>", "<|assistant_start|>"]
    assert sorted(model.controls[-1]) == sorted([*TOKENIZER.special_tokens, *again])


REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no messages": ({"messages": []}, "at least one from the user", None),
    "a tool's message": ({"messages": [{"role": "tool", "content": "x"}]}, "received 'tool'", "messages[0].role"),
    "an answer last": ({"messages": [*chat()["messages"], {"role": "assistant", "content": "x"}]}, "last", "messages"),
    "a late system message": (
        {"messages": [*chat()["messages"], {"role": "system", "content": "x"}]},
        "a system message comes before them",
        None,
    ),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "has no text", None),
    "a call of others": (
        {"messages": [*chat()["messages"], {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]},
        "no tools but its own",
        "messages[1].tool_calls",
    ),
    "a foreign tool": ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "one tool, calculator", "tools"),
    "a forced tool": ({"tool_choice": "required"}, "expected auto or none", "tool_choice"),
    "five stops": ({"stop": list("abcde")}, "up to 4 texts", "stop"),
    "an empty stop": ({"stop": ""}, "none of them empty", "stop"),
    "n": ({"n": 9}, "at most 8 answers", None),
    "a penalty": ({"frequency_penalty": 0.5}, "not supported here", "frequency_penalty"),
    "a format": ({"response_format": {"type": "json_object"}}, "not supported here", "response_format"),
    "a bias": ({"logit_bias": {"5": 1}}, "not supported here", "logit_bias"),
    "temperature": ({"temperature": 3}, "at most 2", "temperature"),
    "not a number": ({"temperature": "hot"}, "expected", "temperature"),
    "alternatives alone": ({"top_logprobs": 2}, "without logprobs", "top_logprobs"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_answered_is_refused_by_its_name(name: str):
    changed, message, param = REFUSED[name]
    with asking() as client:
        answer = client.post(CHATS, json={**chat(), **changed})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["type"] == "invalid_request_error"
    assert message in error["message"]
    assert param is None or error["param"] == param


def test_what_changes_nothing_is_passed_over():
    harmless = {"frequency_penalty": 0.0, "presence_penalty": 0, "logit_bias": {}, "response_format": {"type": "text"}}
    harmless |= {"tools": None, "n": None, "stop": None, "metadata": {"a": "b"}, "service_tier": "auto", "top_p": 0}
    with asking() as client:
        assert client.post(CHATS, json={**chat(), **harmless, "max_tokens": 2}).status_code == 200


def test_other_models_are_not_here():
    with asking() as client:
        answer = client.post(CHATS, json=chat(model="gpt-4"))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert client.get("/v1/models/gpt-4").status_code == 404
        assert client.get("/v1/models/tiny").json() == client.get("/v1/models").json()["data"][0]
        assert [client.post(CHATS, json=chat(model=name, max_tokens=1)).status_code for name in ("tgc", "tiny")] == [
            200
        ] * 2


@pytest.mark.profile("ci")
def test_a_prompt_longer_than_the_context_is_refused_as_openai_does():
    with asking() as client:
        for path, asked in (
            (CHATS, chat("x" * CONTEXT)),
            (CHATS, chat("x" * 9999)),
            (COMPLETIONS, {"prompt": "x" * 99}),
        ):
            error = client.post(path, json=asked).json()["error"]
            assert error["code"] == "context_length_exceeded"
            assert f"context is {CONTEXT} tokens" in error["message"]
        full = client.post(COMPLETIONS, json={"prompt": [1] * CONTEXT, "max_tokens": 9}).json()
    assert (full["usage"]["completion_tokens"], full["choices"][0]["finish_reason"]) == (1, "length")


def test_a_model_without_chat_tokens_completes_and_refuses_chats():
    tokenizer = CharacterTokenizer("abc")
    one = served(restless_of(tokenizer.size), tokenizer=tokenizer)
    with asking(one) as client:
        assert client.post(COMPLETIONS, json={"prompt": "ab", "max_tokens": 2}).status_code == 200
        answer = client.post(CHATS, json=chat("ab"))
        assert "cannot chat" in answer.json()["error"]["message"]
        assert client.post(COMPLETIONS, json={"prompt": "z"}).status_code == answer.status_code == 400
        assert "chat_template" not in client.get("/tokenizer_info").json()
        assert client.get("/v1/models").json()["data"][0]["chats"] is False


def restless_of(vocabulary: int) -> Any:
    from tinygrad_chat import GPT, ModelOptions

    return GPT(vocabulary, ModelOptions(layers=1, heads=2, width=8, context=8))


def test_completions_take_texts_and_tokens_alike():
    with asking() as client:

        def texts(prompt: Any, **settings: Any) -> list[str]:
            asked = {"prompt": prompt, "max_tokens": 4, "temperature": 0, **settings}
            return [choice["text"] for choice in client.post(COMPLETIONS, json=asked).json()["choices"]]

        one = texts("ab")
        tokens = [TOKENIZER.bos, *b"ab"]
        assert texts(tokens) == texts([tokens]) == texts(["ab"]) == one
        assert texts(["ab", "cd"], n=2) == [*one * 2, *texts("cd") * 2]
        assert texts("ab", echo=True) == ["ab" + one[0]]
        assert texts(None) == texts("")


@pytest.mark.parametrize("prompt", [[], [[]], [[-1]], [265], [["a"]], 5])
def test_prompts_that_are_none_are_refused(prompt: Any):
    with asking() as client:
        assert client.post(COMPLETIONS, json={"prompt": prompt}).status_code == 400


def test_an_echo_scores_the_prompt_as_the_model_reads_it():
    """As lm-evaluation-harness asks: how likely are these tokens, and is each the likeliest?"""
    one = served()
    prompt = [1, 2, 3, 4]
    with asking(one) as client:
        asked = {"prompt": [prompt], "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0}
        found = client.post(COMPLETIONS, json=asked).json()["choices"][0]["logprobs"]
        without = client.post(COMPLETIONS, json={**asked, "max_tokens": 0}).json()["choices"][0]["logprobs"]
        text = client.post(COMPLETIONS, json={**asked, "prompt": "ab"}).json()["choices"][0]["logprobs"]
        streamed = events_of(client.post(COMPLETIONS, json={**asked, "stream": True}).text)
    losses = one.engine.model.token_losses([prompt[:-1]], [prompt[1:]])[0]
    assert found["token_logprobs"][0] is found["top_logprobs"][0] is None
    assert found["token_logprobs"][1:-1] == pytest.approx((-losses).tolist(), rel=1e-9)
    assert len(found["tokens"]) == len(prompt) + 1
    assert found["token_logprobs"][-1] == max(found["top_logprobs"][-1].values())
    assert without == {key: value[:-1] for key, value in found.items()}
    assert text["tokens"][:2] == ["a", "b"]  # and not what stands before each text
    assert text["token_logprobs"][0] is not None
    assert text["text_offset"][:2] == [0, 1]
    pieces = [chunk["choices"][0]["logprobs"] for chunk in streamed if chunk["choices"][0]["logprobs"]]
    assert [token for piece in pieces for token in piece["tokens"]] == found["tokens"]
    assert [offset for piece in pieces for offset in piece["text_offset"]] == found["text_offset"]


def test_tokens_and_back():
    with asking() as client:
        found = client.post("/tokenize", json={"prompt": "hé"}).json()
        assert found == {"count": 4, "max_model_len": CONTEXT, "tokens": [TOKENIZER.bos, *"hé".encode()]}
        assert client.post("/tokenize", json={"prompt": "hé", "add_special_tokens": False}).json()["count"] == 3
        assert client.post("/detokenize", json={"tokens": found["tokens"]}).json() == {"prompt": "hé"}
        assert client.post("/detokenize", json={"tokens": [999]}).status_code == 400
        assert client.post("/tokenize", json={}).status_code == 400
        as_read = client.post("/tokenize", json={"messages": chat()["messages"]}).json()["tokens"]
        info = client.get("/tokenizer_info").json()
    assert as_read == served().engine.template.render_prompt(Conversation.of("hi")).tolist()
    assert info["eos_token"] == "<|bos|>"
    assert "<|assistant_start|>" in info["chat_template"]


def test_a_look_inside_has_every_token_and_the_attention_of_one():
    one = served()
    with asking(one) as client:
        found = client.post("/v1/look", json={**chat(), "index": 3, "top_logprobs": 2}).json()
        answered = [*chat()["messages"], {"role": "assistant", "content": "ok"}]
        last = client.post("/v1/look", json={"messages": answered}).json()
        assert client.post("/v1/look", json={**chat(), "index": 6}).status_code == 400
    texts = [token["text"] for token in found["tokens"]]
    assert texts == ["<|bos|>", "<|user_start|>", "h", "i", "<|user_end|>", "<|assistant_start|>"]
    assert [len(token["alternatives"]) for token in found["tokens"]] == [0, 2, 2, 2, 2, 2]
    assert [[len(head) for head in layer] for layer in found["attention"]] == [[4, 4], [4, 4]]
    assert all(sum(head) == pytest.approx(1, abs=1e-5) for layer in found["attention"] for head in layer)
    assert last["index"] == len(last["tokens"]) - 1
    assert [token["text"] for token in last["tokens"]][-3:] == ["o", "k", "<|assistant_end|>"]


def test_tokens_are_told_where_they_are_asked_for_and_can_be_looked_at():
    """Whatever bytes they are: their text need not be UTF-8."""
    with asking() as client:

        def pairs(path: str, asked: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
            """What was read and written: at once and in a stream."""
            asked = {**asked, "max_tokens": 5, "return_token_ids": True}
            whole = client.post(path, json=asked).json()["choices"][0]
            streamed = [
                each["choices"][0] for each in events_of(client.post(path, json={**asked, "stream": True}).text)
            ]
            written = [token for choice in streamed for token in choice.get("token_ids", ())]
            return [(whole["prompt_token_ids"], whole["token_ids"]), (streamed[0]["prompt_token_ids"], written)]

        chats, completions = pairs(CHATS, chat()), pairs(COMPLETIONS, {"prompt": "ab", "seed": 1})
        assert chats[0] == chats[1]
        assert completions[0] == completions[1]
        read, written = chats[0]
        assert read == served().engine.template.render_prompt(Conversation.of("hi")).tolist()
        assert len(written) == 5
        assert completions[0][0] == [TOKENIZER.bos, *b"ab"]
        said = client.post(CHATS, json=chat(max_tokens=5)).json()["choices"][0]
        assert "token_ids" not in said
        text = client.post("/detokenize", json={"tokens": written}).json()["prompt"]
        assert text.startswith(said["message"]["content"].rstrip("\ufffd"))
        looked = client.post("/v1/look", json={"prompt": [*read, 0xC3, 0xFF]}).json()["tokens"]
        assert [token["text"] for token in looked[-2:]] == ["bytes:\\xc3", "bytes:\\xff"]
        assert client.post("/v1/look", json={"prompt": [999]}).status_code == 400
