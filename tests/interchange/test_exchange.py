"""What we export comes back, and opens elsewhere as the same model: its logits, its tokens and its chats."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.interchange.models import FAMILIES, learned, small_model
from tests.text.writings import words
from tinygrad_chat.errors import UsageError
from tinygrad_chat.inference.load import load_model
from tinygrad_chat.interchange.gguf import read_gguf
from tinygrad_chat.interchange.gguf_export import export_gguf
from tinygrad_chat.interchange.huggingface_export import export_huggingface
from tinygrad_chat.interchange.importing import import_model
from tinygrad_chat.interchange.opening import open_model
from tinygrad_chat.runs.folder import RunFolder
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.conversations import ChatTemplate, Conversation

TOKENS = np.array([[5, 99, 300, 41, 7, 5, 260, 11]])
CHATS = [
    Conversation.of("To be?", "Or not.", "\n\nThat is  it "),
    Conversation.of(" a\nb", system="Be brief."),
]
every_family = pytest.mark.parametrize("name", FAMILIES)


def logits(saved: SavedModel) -> np.ndarray:
    return load_model(saved, kernels="numpy").token_logits(TOKENS)


def same_model(found: SavedModel, saved: SavedModel, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(logits(found), logits(saved), rtol=tolerance, atol=tolerance)
    line = "To be, or NOT to be: that's 1234 é😀\n\n  x"
    assert found.tokenizer.encode(line).tolist() == saved.tokenizer.encode(line).tolist()
    for chat in CHATS:
        expected = ChatTemplate(saved.tokenizer).render_prompt(chat)
        assert ChatTemplate(found.tokenizer).render_prompt(chat).tolist() == expected.tolist()


@every_family
@pytest.mark.parametrize("chatml", [False, True])
def test_a_folder_comes_back(name: str, chatml: bool, tmp_path: Path):
    saved, said = small_model(name, chatml=chatml), []
    assert export_huggingface(saved, tmp_path / "out") == len(load_file(tmp_path / "out" / "model.safetensors"))
    found = open_model(tmp_path / "out", say=said.append)
    assert said == []
    assert found.taught_to_chat
    same_model(found, saved)
    assert ChatTemplate(found.tokenizer).stop_tokens >= {ChatTemplate(saved.tokenizer).answer_end}


@every_family
def test_a_gguf_file_comes_back(name: str, tmp_path: Path):
    saved, said = small_model(name, chatml=name == "qwen2"), []
    export_gguf(saved, tmp_path / "out.gguf")
    found = open_model(tmp_path / "out.gguf", say=said.append)
    assert said == []
    same_model(found, saved)


@pytest.mark.profile("ci")
@pytest.mark.parametrize(("kind", "tolerance"), [("F16", 2e-3), ("BF16", 2e-2), ("Q8_0", 3e-2)])
def test_numbers_of_fewer_bits_are_the_same_model_about(kind: str, tolerance: float, tmp_path: Path):
    saved = small_model("smollm2")
    export_gguf(saved, tmp_path / "out.gguf", kind)
    same_model(open_model(tmp_path / "out.gguf", say=print), saved, tolerance)
    assert (tmp_path / "out.gguf").stat().st_size < 4 * sum(array.size for array in saved.weights.values())
    if kind != "Q8_0":
        export_huggingface(saved, tmp_path / "out", kind)
        same_model(open_model(tmp_path / "out", say=print), saved, tolerance)


def test_an_imported_model_is_a_run_like_any_other(tmp_path: Path):
    saved = small_model("qwen3", chatml=True)
    export_huggingface(saved, tmp_path / "out")
    folder = RunFolder(tmp_path / "run")
    import_model(open_model(tmp_path / "out", say=print), folder)
    found = folder.open_newest(SavedModel.load, say=print)
    assert found.taught_to_chat is None  # nobody knows
    same_model(found, saved)
    export_gguf(found, tmp_path / "again.gguf")
    same_model(open_model(tmp_path / "again.gguf", say=print), saved)


@pytest.mark.profile("ci")
def test_padding_and_adapters_are_no_part_of_what_is_exported(tmp_path: Path):
    saved = small_model("llama")
    wide = saved.config.replace(vocabulary_multiple=100)
    weights = {
        name: np.concatenate([array, np.ones((600 - 512, 32), np.float32)]) if len(array) == 512 else array
        for name, array in saved.weights.items()
    }
    padded = dataclasses.replace(saved, config=wide, weights=weights)
    export_huggingface(padded, tmp_path / "out")
    export_gguf(padded, tmp_path / "out.gguf")
    for place in ("out", "out.gguf"):
        same_model(open_model(tmp_path / place, say=print), saved)


def test_what_no_program_knows_is_refused(tmp_path: Path):
    saved = small_model("llama")
    other = dataclasses.replace(saved, config=saved.config.replace(smear=True))
    with pytest.raises(UsageError, match="smear"):
        export_huggingface(other, tmp_path / "out")
    foreign = dataclasses.replace(saved, tokenizer=learned("nanochat"))
    with pytest.raises(UsageError, match=r"^tokenizer: llama.cpp does not split text as nanochat does"):
        export_gguf(foreign, tmp_path / "out.gguf")
    assert list(tmp_path.iterdir()) == []


def transformers_model(folder: Path) -> tuple[Any, Any, Any]:
    transformers = pytest.importorskip("transformers", reason="transformers, of the extra peers, is not installed")
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return torch, model, transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.profile("ci")
@every_family
def test_transformers_opens_our_folder_as_the_same_model(name: str, tmp_path: Path):
    saved = small_model(name, chatml=name in ("smollm2", "qwen3"))
    export_huggingface(saved, tmp_path / "out")
    torch, model, tokenizer = transformers_model(tmp_path / "out")
    with torch.no_grad():
        theirs = model(torch.tensor(TOKENS)).logits.numpy()
    np.testing.assert_allclose(logits(saved), theirs, rtol=1e-4, atol=1e-4)
    source = random.Random(5)
    for text in [words(source, 8) for _ in range(200)]:
        assert tokenizer(text)["input_ids"] == saved.tokenizer.encode(text).tolist()
    for chat in CHATS:
        messages = chat.to_json()["messages"]
        rendered = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert rendered == ChatTemplate(saved.tokenizer).render_prompt(chat).tolist()
    ends = model.generation_config.eos_token_id
    assert ChatTemplate(saved.tokenizer).answer_end in (ends if isinstance(ends, list) else [ends])


@pytest.mark.parametrize("name", ["llama 3.1", "gpt2"])
def test_gguf_reads_our_file(name: str, tmp_path: Path):
    gguf = pytest.importorskip("gguf", reason="gguf, of the extra peers, is not installed")
    saved = small_model(name)
    export_gguf(saved, tmp_path / "out.gguf", "Q8_0")
    reader, ours = gguf.GGUFReader(tmp_path / "out.gguf"), read_gguf(tmp_path / "out.gguf")
    assert {tensor.name for tensor in reader.tensors} == ours.tensors.keys()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2 if name == "gpt2" else gguf.MODEL_ARCH.LLAMA, 2)
    known = {f"{known}.{part}" for _, known in names.mapping.values() for part in ("weight", "bias")}
    assert ours.tensors.keys() <= known
    for tensor in reader.tensors:
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_allclose(np.ravel(found), np.ravel(np.asarray(ours.tensors[tensor.name])), rtol=1e-6)


@pytest.mark.profile("ci")
@pytest.mark.parametrize("name", ["gpt2", "llama", "smollm2", "qwen3"])
def test_llama_cpp_reads_a_text_as_the_same_tokens(name: str, tmp_path: Path):
    """It tells no tokens, but how many it has read and what comes next: that of the text is that of our tokens."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp, llama.cpp as a wheel, is not installed")
    saved = small_model(name)
    export_gguf(saved, tmp_path / "out.gguf")
    settings = xllamacpp.CommonParams()
    settings.model.path, settings.n_parallel, settings.n_ctx = str(tmp_path / "out.gguf"), 1, 96
    settings.warmup, settings.verbosity = False, -1
    server = xllamacpp.Server(settings)

    def read(prompt: object) -> tuple[int, list[tuple[int, float]]]:
        asked = {"prompt": prompt, "n_predict": 1, "n_probs": 3, "cache_prompt": False, "ignore_eos": True}
        answer = server.handle_completions({**asked, "temperature": 0})
        written = answer["choices"][0]["logprobs"]  # None where the next token is half a character
        likeliest = written["content"][0]["top_logprobs"] if written else []
        return answer["usage"]["prompt_tokens"], [(each["id"], round(each["logprob"], 3)) for each in likeliest]

    source = random.Random(6)
    texts = [
        "It's 2026, ISN'T it? 12345 3.14",
        "e\u0301 é😀 日本語",
        " a\n\n  b\t1\n",
        *(words(source, 3) for _ in range(20)),
    ]
    for text in texts:
        assert read(text) == read([saved.tokenizer.bos, *saved.tokenizer.encode(text).tolist()]), text
