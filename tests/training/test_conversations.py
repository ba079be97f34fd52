"""`--data chats.jsonl` trains what the assistant says, and nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_chat
from tinygrad_chat.errors import ConfigError, DataError, UsageError
from tinygrad_chat.models.gpt import GPT
from tinygrad_chat.models.options import ModelOptions
from tinygrad_chat.parallel.data_parallel import make_data_parallel
from tinygrad_chat.runs.checkpoint import find_checkpoints
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.data import open_data
from tinygrad_chat.text.token_store import TokenStore
from tinygrad_chat.text.tokenizers.bpe import CHAT_TOKENS
from tinygrad_chat.training.step import accumulate_gradient
from tinygrad_chat.training.tokens import open_tokens

TINY: dict[str, Any] = {
    "steps": 2,
    "layers": 1,
    "width": 8,
    "heads": 1,
    "context": 32,
    "batch_size": 4,
    "vocabulary": 270,
}
ASKED = {"role": "user", "content": "And then?"}
CHATS = [Conversation.of(f"What is {n} + 1?", f"It is {n + 1}.") for n in range(80)]


def written(folder, rows, name="chats.jsonl"):
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture
def chats(tmp_path):
    return written(tmp_path, [chat.to_json() for chat in CHATS])


def opened(path: Path) -> TokenStore:
    store = open_tokens(str(path), "auto", vocabulary=270, split="auto", text_field="text", encoding=None)
    assert isinstance(store, TokenStore)
    return store


def trained_tokens(store: TokenStore) -> list[int]:
    assert store.marks is not None
    return store.tokens[store.marks & 1 == 1].tolist()


def test_the_store_keeps_what_is_trained_and_is_found_again(chats):
    store = opened(chats)
    assert store.tokenizer.kind == "bpe"
    assert store.split == "documents"
    assert 0 < store.held_out_from < len(store.tokens)
    said = store.tokenizer.decode(trained_tokens(store))
    assert sorted(said.split(".")) == sorted("".join(chat.messages[1].text for chat in CHATS).split("."))
    assert isinstance(opened(chats).marks, np.memmap)
    text = written(chats.parent, [{"text": json.dumps(chat.to_json())} for chat in CHATS], "texts.jsonl")
    assert open_data(str(text), store.tokenizer).marks is None  # the same bytes, as text


@pytest.mark.profile("ci")
def test_a_run_says_what_it_trains_and_is_resumed(chats, tmp_path):
    model = tinygrad_chat.train(str(chats), out=tmp_path / "run", **TINY)
    state = json.loads((find_checkpoints(tmp_path / "run" / "checkpoints")[-1] / "state.json").read_text())
    assert 0 < state["data"]["trained_tokens"] < state["data"]["training_tokens"]
    assert model.config.data.tokenizer == "bpe"
    tinygrad_chat.train(out=tmp_path / "run", resume=True, steps=3)
    mixed = [Path(f"{chats}:0.5"), Path("pydoc:0.5")]
    tuned = tinygrad_chat.train(mixed, start_from=tmp_path / "run", out=tmp_path / "b", steps=1)
    assert tuned.tokenizer.state() == model.tokenizer.state()


def test_conversations_of_ones_own_are_trained_on(tmp_path):
    assert tinygrad_chat.train(CHATS, out=tmp_path / "run", **TINY).tokenizer.kind == "bpe"


def test_a_tokenizer_that_cannot_tell_who_speaks_is_refused(chats, tmp_path):
    for kind in ("characters", "bytes"):
        with pytest.raises(UsageError, match="--tokenizer bpe"):
            tinygrad_chat.train(str(chats), tokenizer=kind, out=tmp_path / kind)
    tiny = {name: value for name, value in TINY.items() if name != "vocabulary"}
    tinygrad_chat.train("pydoc", tokenizer="characters", out=tmp_path / "text", **tiny)
    with pytest.raises(UsageError, match="no tokens that mark who speaks"):
        tinygrad_chat.train(str(chats), start_from=tmp_path / "text", out=tmp_path / "tuned")


def test_names_of_special_tokens_in_conversations_are_text(tmp_path):
    names = "".join(CHAT_TOKENS)
    store = opened(written(tmp_path, [Conversation.of(names, names, system=names).to_json()] * 20))
    special = store.tokenizer.special_tokens
    for name, token in special.items():
        used = name == "<|bos|>" or "user" in name or "assistant" in name
        assert np.count_nonzero(store.tokens == token) == (20 if used else 0)
    assert store.tokenizer.decode(store.tokens) == f"{names}\n\n{names}{names}" * 20


@pytest.mark.profile("ci")
def test_packing_plays_no_part_but_beside_text(chats, tmp_path):
    with pytest.raises(ConfigError, match=r"^--packing best-fit: has no effect with conversations, which are always"):
        tinygrad_chat.train(str(chats), packing="best-fit", out=tmp_path / "a", **TINY)
    assert not (tmp_path / "a").exists()
    mixed = [Path(f"{chats}:0.5"), Path("pydoc:0.5")]
    tinygrad_chat.train(mixed, packing="best-fit", tokenizer="bpe", out=tmp_path / "b", **TINY)


def test_rows_of_the_wrong_shape_name_file_line_and_key(chats):
    with chats.open("a") as file:
        file.write('{"messages": [{"role": "user", "content": 5}]}\n')
    with pytest.raises(DataError, match=rf"chats.jsonl, line {len(CHATS) + 1}: messages\[0\].content"):
        opened(chats)


def test_few_conversations_are_held_out_whole(tmp_path):
    store = opened(written(tmp_path, [chat.to_json() for chat in CHATS[:3]]))
    assert store.held_out_from in store.document_starts
    with pytest.raises(DataError, match="at least one conversation"):
        tinygrad_chat.train(CHATS[:1], out=tmp_path / "run", **TINY)


def test_a_table_of_questions_and_answers(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("instruction,output\n" + "".join(f'"Add 1 to {n}",It is {n + 1}.\n' for n in range(9)))
    store = opened(path)
    assert "It is 9." in store.tokenizer.decode(trained_tokens(store))
    path.write_text(path.read_text() + "And 1?,Two, or so.\n")
    with pytest.raises(DataError, match=r"a.csv, line 11: expected 2 cells, received 3; put text .* double quotes"):
        opened(path)


def test_questions_without_an_answer_are_counted_and_said(tmp_path):
    rows = [chat.to_json() for chat in CHATS]
    path = written(tmp_path, [*rows[:-2], *({"messages": [*row["messages"], ASKED]} for row in rows[-2:])])
    assert opened(path).notes == (f"{path}: left out 2 questions that nobody has answered",)
    assert opened(path).notes == (f"{path}: left out 2 questions that nobody has answered",)  # of a store that is kept
    answered = opened(written(tmp_path, rows, "answered.jsonl"))
    assert answered.notes == ()
    assert sorted(answered.tokens) == sorted(opened(path).tokens)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_loss_is_the_mean_over_trained_tokens_however_they_lie(threads):
    random = np.random.default_rng(0)
    model = GPT(11, ModelOptions(layers=1, width=8, heads=1, context=6), random=random)
    tokens, targets = random.integers(11, size=(2, 6, 6))
    targets[0, 1:], targets[1], targets[2, :5] = -1, -1, -1  # 1, 0, 1 and 18 targets that count
    losses = model.token_losses(tokens, targets)
    mean = losses[targets >= 0].mean()
    whole = model.loss(tokens, targets)
    assert float(whole.data) == pytest.approx(mean, rel=1e-5)
    model.parameters().zero_gradient()
    whole.backward()
    wanted = model.parameters().gradient.copy()
    for micro_batches in (1, 2, 3):
        team = make_data_parallel(model, threads, rows=6 // micro_batches) if threads > 1 else None
        loss = accumulate_gradient(model, (tokens, targets), micro_batches=micro_batches, data_parallel=team)
        assert float(loss) == pytest.approx(mean, rel=1e-5)
        np.testing.assert_allclose(model.parameters().gradient, wanted, rtol=1e-4, atol=1e-6)
