"""The clients that people have: the libraries `openai` and `llm` (extra `peers`), and lm-evaluation-harness."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("starlette", reason="starlette, of the extra serve, is not installed")

from tests.cli.chatting import CALL, TOKENIZER
from tests.serving.asking import scripted, served
from tests.serving.talking import HOST
from tests.serving.threads import ServerThread, server_thread

LM_EVAL_PYTHON = os.environ.get("LM_EVAL_PYTHON")
"""The Python of an environment with lm-eval[api]; it needs half a gigabyte, so it is no extra."""


@pytest.fixture(scope="module")
def server() -> Iterator[ServerThread]:
    with server_thread(scripted(hi="Hello, Österreich.", sum=CALL)) as started:
        yield started


def url(server: ServerThread) -> str:
    return f"http://{HOST}:{server.port}/v1"


# --- openai


@pytest.fixture
def client(server: ServerThread) -> Iterator[Any]:
    openai: Any = pytest.importorskip("openai", reason="openai, of the extra peers, is not installed")
    with openai.OpenAI(base_url=url(server), api_key="any", max_retries=0) as made:
        yield made


HI: Any = {"model": "tgc", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}


@pytest.mark.profile("ci")
def test_openai_reads_an_answer_and_a_stream_of_it(client: Any):
    whole = client.chat.completions.create(**HI)
    assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == ("Hello, Österreich.", "stop")
    chunks = list(client.chat.completions.create(**HI, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello, Österreich."
    assert chunks[-1].usage == whole.usage
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.chat.completions.create(**HI, stop=["lo"]).choices[0].message.content == "Hel"


@pytest.mark.profile("ci")
def test_openai_reads_log_probabilities_with_the_bytes_of_half_characters(client: Any):
    found = client.chat.completions.create(**HI, logprobs=True, top_logprobs=2).choices[0].logprobs.content
    assert bytes(byte for token in found for byte in token.bytes).decode() == "Hello, Österreich."
    assert found[0].token == found[0].top_logprobs[0].token == "H"
    assert found[0].logprob == found[0].top_logprobs[0].logprob > found[0].top_logprobs[1].logprob


def test_openai_sees_the_calculator_s_calls_as_parts(client: Any):
    asked = {**HI, "messages": [{"role": "user", "content": "sum"}]}
    message = client.chat.completions.create(**asked).choices[0].message
    assert message.content == "It is 9716."
    assert [part["type"] for part in message.parts] == ["python", "python_output", "text"]


def test_openai_knows_errors_by_their_class_code_and_parameter(client: Any):
    openai: Any = pytest.importorskip("openai")
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(**{**HI, "model": "gpt-9"})
    with pytest.raises(openai.BadRequestError) as unsupported:
        client.chat.completions.create(**HI, presence_penalty=1)
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(**{**HI, "messages": [{"role": "user", "content": "hi" * 1000}]})
    assert unknown.value.code == "model_not_found"
    assert (unsupported.value.param, unsupported.value.code) == ("presence_penalty", "unsupported_parameter")
    assert long.value.code == "context_length_exceeded"


def test_openai_is_answered_by_whom_it_knows_the_key_of():
    openai: Any = pytest.importorskip("openai", reason="openai, of the extra peers, is not installed")
    with server_thread(api_key="right") as server:
        with openai.OpenAI(base_url=url(server), api_key="right", max_retries=0) as client:
            assert client.models.list().data[0].id == "paced"
        wrong = openai.OpenAI(base_url=url(server), api_key="wrong", max_retries=0)
        with wrong, pytest.raises(openai.AuthenticationError):
            wrong.models.list()


# --- llm


def test_llm_asks_the_endpoint_without_any_setup(server: ServerThread, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    command: Any = pytest.importorskip("llm.cli", reason="llm, of the extra peers, is not installed").cli
    from click.testing import CliRunner

    asked = CliRunner().invoke(command, ["openai", "endpoint", url(server), "-m", "tgc", "hi"])
    assert (asked.exit_code, asked.output.strip()) == (0, "Hello, Österreich."), asked


# --- lm-evaluation-harness

TASK = """\
task: letters
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: answer
doc_to_choice: choices
target_delimiter: ""
metric_list: [{metric: acc}]
"""
ROWS = [{"question": f"q{row}", "choices": ["ab", "cd", "ef"], "answer": row % 3} for row in range(12)]


@pytest.mark.skipif(LM_EVAL_PYTHON is None, reason="LM_EVAL_PYTHON names no Python with lm-eval[api]")
def test_lm_evaluation_harness_scores_choices_as_the_model_does(tmp_path: Path):
    one = served()
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    (tmp_path / "letters.yaml").write_text(TASK.replace("DATA", str(tmp_path / "rows.jsonl")))
    with server_thread(one, rows=4) as server:
        arguments = f"model=tgc,base_url={url(server)}/completions,tokenizer_backend=remote,num_concurrent=2"
        command = f"-m lm_eval run --model local-completions --tasks letters --include_path {tmp_path}"
        asked = subprocess.run(
            [str(LM_EVAL_PYTHON), *command.split(), "--model_args", arguments, "--output_path", str(tmp_path / "out")],
            env={**os.environ, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
            capture_output=True,
            text=True,
        )
    assert asked.returncode == 0, asked.stderr[-2000:]
    (found,) = (tmp_path / "out").rglob("results*.json")
    model = one.engine.model

    def likelihood(question: str, choice: str) -> float:
        tokens = np.array([TOKENIZER.encode(question + choice)])
        return -float(model.token_losses(tokens[:, :-1], tokens[:, 1:])[0, -len(choice) :].sum())

    chosen = [np.argmax([likelihood(row["question"], choice) for choice in row["choices"]]) for row in ROWS]
    right = np.mean([choice == row["answer"] for choice, row in zip(chosen, ROWS, strict=True)])
    assert json.loads(found.read_text())["results"]["letters"]["acc,none"] == pytest.approx(right)
