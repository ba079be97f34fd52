"""The front door: train, load and sample with one import, also a model and a dataset of one's own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygrad_chat
from tests.cli.conftest import Tgc, tgc  # noqa: F401 - a fixture
from tinygrad_chat import Dataset, NextTokenModel, TextModel, nn, ops
from tinygrad_chat.errors import CheckpointError, ConfigError, DataError, UsageError, VocabularyError
from tinygrad_chat.tasks import Problem
from tinygrad_chat.text.conversations import Conversation
from tinygrad_chat.text.tokenizers import ByteTokenizer, NumberTokenizer
from tinygrad_chat.training.events import Logged

TINY: dict[str, Any] = {"layers": 1, "heads": 2, "width": 8, "context": 8, "batch_size": 4, "steps": 8, "lr": 0.01}
WORDS = ["anna", "bob", "otto", "hannah", "ada", "eve", "elle", "noon"] * 40


class MLP(NextTokenModel):
    """makemore's: the embeddings of the last tokens side by side, through a hidden layer (Bengio et al., 2003)."""

    def __init__(self, vocabulary: int, context: int = 3, width: int = 24) -> None:
        random = np.random.default_rng(0)
        self.vocabulary, self.context = vocabulary, context
        self.embedding = nn.Embedding(vocabulary + 1, 8, random=random)  # one more stands before the beginning
        self.hidden = nn.Linear(8 * context, width, random=random)
        self.head = nn.Linear(width, vocabulary, random=random)

    def logits(self, tokens: Any, **_: Any) -> tinygrad_chat.Tensor:
        padded = np.pad(tokens, ((0, 0), (self.context - 1, 0)), constant_values=self.vocabulary)
        windows = np.lib.stride_tricks.sliding_window_view(padded, self.context, axis=1)
        x = self.embedding(windows).reshape(*windows.shape[:2], -1)
        return self.head(ops.tanh(self.hidden(x)))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def text_of(model: TextModel, prompt: str = "", **options: Any) -> str:
    return "".join(model.generate(prompt, max_new_tokens=20, **options))


def test_train_load_sample():
    lines: list[float] = []
    model = tinygrad_chat.train(
        WORDS, **TINY, log_every=1, watch=lambda event: isinstance(event, Logged) and lines.append(event.record["step"])
    )
    assert lines == list(range(9))
    again = tinygrad_chat.load(model.path)
    assert text_of(model) == text_of(again) == text_of(tinygrad_chat.load())
    assert text_of(again, "an", seed=2) == text_of(again, "an", seed=2) != text_of(again, "an", seed=3)
    assert tinygrad_chat.load_tokenizer(model.path).encode("ada").tolist() == again.tokenizer.encode("ada").tolist()
    assert "TextModel" not in repr(again)
    assert "parameters" in repr(again)


@pytest.mark.parametrize("mode", ["tensor", "scalar"])
def test_logits_are_those_that_the_next_token_is_drawn_by(mode: str):
    model = tinygrad_chat.train(WORDS, **{**TINY, "steps": 1, "eval_tokens": 9, "mode": mode}, soft_cap=2.0)
    tokens = model.tokenizer.encode("hanna")
    logits = model.logits("hanna")
    assert logits.shape == (5, model.tokenizer.size)
    rtol, atol = (0, 0) if mode == "scalar" else (1e-5, 1e-6)  # some BLAS adds up more rows in another order
    np.testing.assert_allclose(model.logits(np.stack([tokens, tokens]))[1], logits, rtol=rtol, atol=atol)
    for length in (1, 5):
        expected = model.model.next_token_logits(tokens[None, :length].astype(int))[0]
        np.testing.assert_allclose(logits[length - 1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.profile("ci")
def test_a_model_of_ones_own_trains_resumes_loads_and_samples(tgc: Tgc):  # noqa: F811
    model = tinygrad_chat.train(WORDS, model=MLP, steps=60, batch_size=8, lr=0.03, out="whole", eval_every=20)
    losses = [record["val_loss"] for record in records(model.path)]
    assert losses[-1] < 0.8 * losses[0]
    loaded = tinygrad_chat.load("whole", model=MLP)
    assert text_of(loaded) == text_of(model)
    assert isinstance(loaded.model, MLP)
    tinygrad_chat.train(WORDS, model=MLP, steps=40, batch_size=8, lr=0.03, out="stopped", eval_every=20)
    further = tinygrad_chat.train(WORDS, model=MLP, steps=60, out="stopped", resume=True)
    assert records("stopped")[-1]["step"] == 60
    assert text_of(further)
    with pytest.raises(ConfigError, match=r"open it in Python, as in load\(path, model=YourModel\)"):
        tinygrad_chat.load("whole")
    assert tgc("sample", "--checkpoint", "whole")[0] == 2
    code, _, err = tgc("train", "--model", "own")
    assert (code, err) == (
        2,
        "tgc: --model own: a custom model is built in Python, as in tinygrad_chat.train(..., model=YourModel)\n",
    )


def records(path: str) -> Sequence[Mapping[str, Any]]:
    from tinygrad_chat.runs.folder import RunFolder

    return [record for record in RunFolder(Path(path)).records() if "val_loss" in record]


def test_a_dataset_of_ones_own_trains():
    tokens = np.arange(4000) * 7 % 13
    counted = tinygrad_chat.train(Dataset.from_tokens(tokens, context=8), **TINY)
    assert set(text_of(counted).split()) <= {str(token) for token in range(14)}
    named = tinygrad_chat.train(Dataset.from_tokens(tokens, context=8), tokenizer=ByteTokenizer(), **TINY)
    assert named.model.vocabulary == 257


def test_a_tokenizer_of_ones_own_reads_what_has_a_name(text: Path):
    tokenizer = ByteTokenizer()
    model = tinygrad_chat.train(text, tokenizer=tokenizer, **TINY, out="run")
    assert model.tokenizer.state() == tokenizer.state()
    assert (model.config.data.tokenizer, model.config.data.source) == ("bytes", str(text))
    tinygrad_chat.train(resume=True, out="run", tokenizer=tokenizer, steps=9)
    with pytest.raises(VocabularyError, match=r"run: expected data from the run's tokenizer \(bytes, 257 tokens\)"):
        tinygrad_chat.train(resume=True, out="run", tokenizer=NumberTokenizer(257, bos=256), steps=10)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"model": "bigram"}, ConfigError, "--model: the run to resume has mini-gpt, received bigram"),
        ({"model": MLP}, ConfigError, "--model: the run to resume has mini-gpt, received own"),
        ({"tokenizer": "bytes"}, ConfigError, "--tokenizer: the run to resume has characters, received bytes"),
        ({"data": "other.txt"}, CheckpointError, "--data other.txt: is not the text that the run was trained on"),
        ({"data": WORDS[::-1]}, CheckpointError, "--data texts: has changed since the run began"),
    ],
)
def test_what_is_given_to_a_run_that_goes_on_is_not_passed_over(text: Path, given: Any, error: Any, message: str):
    Path("other.txt").write_bytes(text.read_bytes()[::-1])
    data = WORDS if isinstance(given.get("data"), list) else text
    tinygrad_chat.train(data, **TINY, out="run")
    with pytest.raises(error) as caught:
        tinygrad_chat.train(resume=True, out="run", steps=9, **given)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    tinygrad_chat.train(resume=True, out="run", steps=9, data=data)


@pytest.mark.parametrize("tokenizer", ["characters", "bytes"])
def test_a_run_on_texts_of_ones_own_says_so_and_goes_on_with_them(tokenizer: str, tgc: Tgc):  # noqa: F811
    model = tinygrad_chat.train(WORDS, tokenizer=tokenizer, **TINY, out="run")
    assert model.config.data.source == "texts"
    again = tinygrad_chat.train(WORDS, resume=True, out="run", steps=9)
    assert again.tokenizer.state() == model.tokenizer.state()
    told = "run: is trained on data passed in Python (texts); "
    told += "pass it again to tinygrad_chat.train(..., resume=True)"
    with pytest.raises(UsageError) as caught:
        tinygrad_chat.train(resume=True, out="run", steps=10)
    assert str(caught.value) == told
    code, _, err = tgc("train", "--resume", "--out", "run", "--steps", "10")
    assert (code, err) == (2, f"tgc: {told}\n")


def test_a_run_on_texts_that_was_killed_at_once_says_so_too(tgc: Tgc):  # noqa: F811
    tinygrad_chat.train(WORDS, **TINY, out="run")
    shutil.rmtree("run/checkpoints")
    Path("texts").write_text("no text of this run " * 99)  # which goes by the name that they go by
    code, out, err = tgc("train", "--resume", "--out", "run")
    assert (code, out) == (2, "")
    assert "is trained on data passed in Python (texts); pass it again to" in err
    Path("run", "log.jsonl").write_bytes(b"")
    Path("run", "timing.jsonl").unlink()
    assert tinygrad_chat.train(WORDS, resume=True, out="run").config.data.source == "texts"


def test_a_dataset_by_another_tokenizer_is_not_taken_for_the_runs():
    data = Dataset.from_tokens(np.arange(4000) * 7 % 13, context=8, source="counting")
    assert tinygrad_chat.train(data, **TINY, out="run").config.data.source == "counting"
    with pytest.raises(VocabularyError, match=r"\(numbers, 14 tokens\), received another \(bytes, 257 tokens\)"):
        tinygrad_chat.train(data, tokenizer=ByteTokenizer(), resume=True, out="run", steps=9)
    tinygrad_chat.train(data, resume=True, out="run", steps=9)


def test_a_model_says_from_where_it_was_opened():
    model = tinygrad_chat.train(WORDS, **TINY)
    name, newest = Path(model.path).name, Path(model.path) / "checkpoints" / "step-000008"
    for path in (None, name, model.path, Path(model.path) / "checkpoints"):
        assert tinygrad_chat.load(path).path == model.path
    assert tinygrad_chat.load(newest).path == str(newest)


def test_settings_may_be_numpys_numbers():
    model = tinygrad_chat.train(WORDS, **{**TINY, "layers": np.int64(1), "lr": np.float32(0.5), "clip": np.int32(2)})
    options = model.config.optimizer
    assert (model.config.model.layers, options.lr, options.clip) == (1, 0.5, 2.0)
    assert [type(value) for value in (model.config.model.layers, options.lr, options.clip)] == [int, float, float]


def test_a_model_that_says_no_logits_is_told_how():
    class Mute(NextTokenModel):
        vocabulary, context = 5, 4

    with pytest.raises(NotImplementedError, match="Mute: a model defines its logits"):
        Mute().loss(np.array([[1]]), np.array([[2]]))


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        (lambda: tinygrad_chat.train(WORDS, layrs=2), ConfigError, "train: unknown key 'layrs'; did you mean layers?"),
        (lambda: tinygrad_chat.train(WORDS, layers=0.5), ConfigError, "train: layers: expected int, received 0.5"),
        (lambda: tinygrad_chat.train(WORDS, resume=True), ConfigError, "resume: expected out"),
        (lambda: tinygrad_chat.train(WORDS, model="gpt5"), ConfigError, "--model: expected one of"),
        (
            lambda: tinygrad_chat.train(WORDS, model=MLP, layers=2),
            ConfigError,
            "--layers: has no effect with --model own",
        ),
        (lambda: tinygrad_chat.train(WORDS, model=MLP, optimizer="muon"), ConfigError, "--optimizer muon: works only"),
        (lambda: tinygrad_chat.train(["a text", 3]), DataError, "--data texts: expected texts, each a str, received 3"),  # pyright: ignore[reportArgumentType]
        (lambda: tinygrad_chat.load("nowhere"), CheckpointError, "nowhere: no such file or folder"),
        (lambda: tinygrad_chat.load_tokenizer("nowhere"), CheckpointError, "nowhere: no such file or folder"),
        (lambda: tinygrad_chat.train(WORDS, **TINY).logits([]), UsageError, "logits: expected a text, or tokens"),
        (
            lambda: tinygrad_chat.train(WORDS, **TINY).logits([[1, 2], [3]]),
            UsageError,
            "logits: expected a text, or tokens (T,) or (B, T), received rows of different lengths",
        ),
        (
            lambda: tinygrad_chat.load(tinygrad_chat.train(WORDS, **TINY).path, mode="silly"),
            ConfigError,
            "--mode: expected one of tensor, scalar, received 'silly'",
        ),
        (lambda: tinygrad_chat.train(WORDS, layers=True), ConfigError, "train: layers: expected int, received True"),
        (lambda: tinygrad_chat.train(WORDS, lr=True), ConfigError, "train: lr: expected float, received True"),
        (lambda: tinygrad_chat.train(WORDS, **TINY).logits([99]), UsageError, "logits: expected tokens from 0 to"),
        (lambda: tinygrad_chat.train(WORDS, **TINY).generate("q"), VocabularyError, "character 'q'"),
        (lambda: tinygrad_chat.train(WORDS, **TINY).generate(top_p=2.0), ConfigError, "--top-p: expected"),
    ],
)
def test_a_mistake_is_one_line(mistake: Any, error: type[Exception], message: str):
    with pytest.raises(error) as caught:
        mistake()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_several_paths_and_patterns_are_data_too(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.txt").write_text("more text\n" * 9)
    model = tinygrad_chat.train([text, tmp_path / "more.txt"], **TINY, out="run")
    assert model.config.data.source == (str(text), str(tmp_path / "more.txt"))
    assert tinygrad_chat.train(**TINY, data="*.txt", out="other").config.data.source == "*.txt"


def test_what_is_damaged_in_a_run_is_warned_of(text: Path):
    tinygrad_chat.train(text, **TINY, out="run", checkpoint_every=4)
    Path("run", "checkpoints", "step-000008", "state.json").write_text("{}")
    for use in (lambda: tinygrad_chat.load("run"), lambda: tinygrad_chat.train(resume=True, out="run")):
        with pytest.warns(UserWarning, match="step-000008: the checkpoint is damaged .*; skipped") as warned:
            use()
        assert [each.filename for each in warned] == [__file__]
    log = Path("run", "log.jsonl")
    log.write_text("".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[1:]), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"log\.jsonl: 1 of its .* missing"):
        tinygrad_chat.train(resume=True, out="run", steps=9)


def test_a_model_is_asked_a_task(text: Path):
    class Anything:
        name, about, chance = "anything", "say anything", 0.0

        def problems(self, count: int, seed: int) -> Iterator[Problem]:
            for number in range(count):
                yield Problem(Conversation.of(f"{seed}?"), "yes", lambda said, number=number: number > 0)

    chats = {"tokenizer": "bpe", "vocabulary": 265, "context": 32}
    model = tinygrad_chat.train([text.read_text(encoding="utf-8") * 9], **{**TINY, **chats}, out="run")
    result = tinygrad_chat.evaluate("run", Anything(), count=4, seed=7)
    assert (result.solved, result.count, result.examples[0].question) == (3, 4, "7?")
    assert tinygrad_chat.evaluate(model, "sentences", count=1).count == 1
    with pytest.raises(UsageError, match="--run-programs"):
        tinygrad_chat.evaluate(model, "programs")


def test_ranks_that_would_each_train_by_themselves_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="train: 2 ranks were started; only tgc train can train with several"):
        tinygrad_chat.train("pydoc", steps=1)
