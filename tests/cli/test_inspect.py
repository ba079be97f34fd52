"""`tgc inspect`: what a model is, of whichever program, on one screen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import TINY, Tgc
from tests.interchange.models import FAMILIES, small_model
from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.interchange.gguf_export import export_gguf
from tinygrad_chat.interchange.huggingface_export import export_huggingface
from tinygrad_chat.models.memory import cache_memory, memory_to_answer


def facts(out: str) -> dict[str, str]:
    """What stands beside each name."""
    return {name.strip(): text for name, _, text in (line.partition("  ") for line in out.splitlines()) if text}


@pytest.mark.profile("ci")
def test_a_run_is_shown_on_one_screen(tgc: Tgc):
    Path("abc.txt").write_text("abc dba\n" * 40)
    assert tgc("train", *TINY, "--data", "abc.txt", "--tokenizer", "bytes", "--out", "runs/r")[0] == 0
    code, out, said = tgc("inspect", "r")
    assert (code, said) == (0, "")
    assert len(out.splitlines()) <= 20
    assert tgc("inspect") == (0, out, "")  # the newest
    found = {name: text.strip() for name, text in facts(out).items()}
    assert found["checkpoint"].startswith("runs/r/checkpoints/step-000004, ")
    assert found["trained"].startswith("4 steps in ")
    assert found["family"] == "gpt2, GPT2LMHeadModel"
    assert found["shape"] == "1 layer, 2 heads of 4, width 8, feed-forward 32, context 8"
    assert found["tokenizer"] == "bytes, 257 tokens; begins with <|bos|>, ends with <|bos|>"
    assert found["chats"] == "no"
    assert found["exports to"] == "huggingface, gguf"
    assert found["not nanochat"].endswith("train one with --model nanochat")


@pytest.mark.profile("ci")
@pytest.mark.parametrize("name", ["smollm2", "qwen3"])
def test_another_program_s_model_is_the_same_in_both_of_its_forms(name: str, tgc: Tgc, tmp_path: Path):
    saved = small_model(name, chatml=True)
    export_huggingface(saved, tmp_path / "out", "F16")
    export_gguf(saved, tmp_path / "out.gguf", "Q8_0")
    found = [json.loads(tgc("inspect", place, "--json", "--tensors")[1]) for place in ("out", "out.gguf")]
    total = sum(array.size for array in saved.weights.values())
    options = FAMILIES[name][1]
    for each, what in zip(found, ("Hugging Face folder", "GGUF file"), strict=True):
        assert each["what"] == what
        assert each["parameters"] == sum(each["parts"].values()) == sum(each["stored"].values()) == total
        assert {tensor["name"]: tuple(tensor["shape"]) for tensor in each["tensors"]} == {
            key: array.shape for key, array in saved.weights.items()
        }
        assert each["options"]["norm"] == "rmsnorm"
        assert each["shape"]["key_value_heads"] == options["key_value_heads"]
        assert each["tokenizer"]["pre_tokenizer"] == FAMILIES[name][0]
        assert each["tokenizer"]["ends"] == ["<|endoftext|>", "<|im_end|>"]
        assert each["chats"] == "its own"
        assert each["memory"] == memory_to_answer(saved.config.model, saved.tokenizer.size)
        assert each["cache"] == cache_memory(saved.config.model)
        assert each["exports"]["huggingface"] is each["exports"]["gguf"] is None
        assert each["bytes"] == (tmp_path / ("out/model.safetensors" if what[0] == "H" else "out.gguf")).stat().st_size
    assert found[0]["stored"] == {"F16": total}
    assert {"F32", "Q8_0"} <= set(found[1]["stored"])
    assert found[1]["stored"]["F32"] < found[1]["stored"]["Q8_0"]
    assert found[0]["parts"] == found[1]["parts"]
    assert "tensors" not in json.loads(tgc("inspect", "out", "--json")[1])
    rows = [line.split() for line in tgc("inspect", "out.gguf", "--tensors")[1].splitlines()]
    assert ["final_norm.gain", "32", "F32", "32"] in rows
    embedding = ["token_embedding.weight", f"{saved.tokenizer.size}", "x", "32", "Q8_0"]
    assert [*embedding, f"{saved.tokenizer.size * 32:,}"] in rows


def test_parts_are_what_they_are_called(tgc: Tgc, tmp_path: Path):
    saved = small_model("llama")
    export_gguf(saved, tmp_path / "out.gguf")
    parts = json.loads(tgc("inspect", "out.gguf", "--json")[1])["parts"]
    C, V, F, L = 32, saved.tokenizer.size, 64, 2
    attention = L * (2 * C * C + 2 * C * C // 2)
    norms = (2 * L + 1) * C
    assert parts == {
        "embeddings": V * C,
        "norms and scales": norms,
        "attention": attention,
        "feed-forward": L * 3 * C * F,
        "head": V * C,
    }


def test_what_is_no_model_is_one_line(tgc: Tgc):
    code, out, said = tgc("inspect", "nothing")
    assert (code, out) == (CheckpointError.exit_code, "")
    assert said.startswith("tgc: nothing: ")
    assert said.count("\n") == 1
