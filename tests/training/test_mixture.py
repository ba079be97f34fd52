"""A run on several sources: trained on by their shares, evaluated each by itself, resumed to the bit."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tinygrad_chat.errors import CheckpointError
from tinygrad_chat.ops.cross_entropy import IGNORED
from tinygrad_chat.text.tokenizers import BPETokenizer
from tinygrad_chat.training.evaluation import Evaluation, evaluate_batches, mix_evaluations
from tinygrad_chat.training.loop import train
from tinygrad_chat.training.run import Run, resume_run

Start = Callable[..., Run]


@pytest.fixture
def sources(tmp_path: Path) -> tuple[str, str]:
    (tmp_path / "small.txt").write_text("abcd" * 60)
    (tmp_path / "large.txt").write_text("WXYZ" * 60)
    return f"{tmp_path / 'small.txt'}:0.75", f"{tmp_path / 'large.txt'}:0.25"


def finish(run: Run) -> Run:
    for _ in train(run):
        pass
    return run


@pytest.mark.parametrize("packing", ["none", "best-fit"])
def test_each_source_has_its_share_of_the_rows(start: Start, sources: tuple[str, str], packing: str):
    run = start(data=sources, batch_size=2, packing=packing)
    large = run.tokenizer.encode("W").item()
    small = run.tokenizer.encode("a").item()
    rows = np.concatenate([run.batch(number)[0] for number in range(8)])
    of_small = (rows >= small).any(axis=1)
    assert of_small.sum() == 12
    assert ((rows >= large) & (rows < small)).any(axis=1).sum() == 4


def test_pieces_of_words_are_learned_from_all_sources(start: Start, sources: tuple[str, str]):
    run = start(data=sources, tokenizer="bpe", vocabulary=270, context=2)
    assert isinstance(run.tokenizer, BPETokenizer)
    assert {b"ab", b"WX"} <= set(run.tokenizer.tokens)


def test_the_log_has_each_source_and_all_by_their_shares(start: Start, sources: tuple[str, str]):
    run = finish(start(data=sources, eval_tokens=40))
    records = [record for record in run.folder.records() if "val_loss" in record]
    names = [source.rpartition(":")[0] for source in sources]
    assert [len(tokens) for tokens in run.evaluation_tokens] == [20, 20]
    for record in records:
        losses = [record["sources"][name]["val_loss"] for name in names]
        assert record["val_loss"] == pytest.approx(0.75 * losses[0] + 0.25 * losses[1])
        assert record["val_bpb"] == pytest.approx(record["val_loss"] / np.log(2))  # a byte is a token here
    report = (run.folder.path / "report.md").read_text(encoding="utf-8")
    best = min(records, key=lambda record: record["val_loss"])
    for name in names:
        assert f"**{best['sources'][name]['val_loss']:.4f}**" in report


def test_a_mixture_goes_on_to_the_bit_and_only_with_its_shares(start: Start, sources: tuple[str, str]):
    whole, broken = finish(start("whole", data=sources)), start("broken", data=sources)
    for _ in train(broken, should_stop=lambda: broken.progress.step == 4):
        pass
    again = finish(resume_run(broken.folder.path, {}))
    logs = [(run.folder.path / "log.jsonl").read_text() for run in (whole, again)]
    assert logs[0] == logs[1]
    assert '"sources"' in logs[0]
    names = [source.rpartition(":")[0] for source in sources]
    with pytest.raises(CheckpointError, match="leave --data out"):
        resume_run(broken.folder.path, {"data": (f"{names[0]}:0.5", f"{names[1]}:0.5")})


def test_an_evaluation_of_a_mixture_is_that_of_a_text_in_which_each_source_has_its_share():
    class Known:
        """A model whose losses are known."""

        context = 4

        def token_losses(self, tokens: np.ndarray, targets: np.ndarray) -> np.ndarray:
            return 1.0 + 0.25 * targets

    bytes_per_token = np.array([0, 1, 2, 3])
    ones, threes = np.full((2, 4), 1), np.array([[3, 3, 0, IGNORED]])
    alone = {
        "ones": evaluate_batches(Known(), [(ones, ones)], bytes_per_token),
        "threes": evaluate_batches(Known(), [(threes, threes)], bytes_per_token),
    }
    mixed = mix_evaluations(alone, (Fraction(1, 2), Fraction(1, 2)))
    half = np.repeat(threes, 3, axis=0)  # of these, nine count
    both = [(np.full((1, 9), 1),) * 2, (half, half)]
    together = evaluate_batches(Known(), both, bytes_per_token)
    for name in ("loss", "perplexity", "bits_per_byte"):
        assert getattr(mixed, name) == pytest.approx(getattr(together, name))
    assert (mixed.tokens, mixed.bytes) == (8 + 3, 8 + 6)
    assert isinstance(mixed, Evaluation)
