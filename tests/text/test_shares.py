"""Sources with shares: exact, by the number of the batch alone, and never taken for something else."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_chat.errors import DataError
from tinygrad_chat.text.batches import Batch
from tinygrad_chat.text.corpora import open_corpus, settle_source
from tinygrad_chat.text.data import open_sources
from tinygrad_chat.text.dataset import Dataset
from tinygrad_chat.text.mixture import Mixture, dataset_of, mixed_batch
from tinygrad_chat.text.shares import rows_between, rows_of_each, shares_of, split_share, without_shares
from tinygrad_chat.text.token_store import MixedStore, TokenStore

weights = st.lists(st.integers(1, 50), min_size=1, max_size=6)


def normalised(parts: list[int]) -> list[Fraction]:
    return [Fraction(part, sum(parts)) for part in parts]


@given(weights, st.integers(0, 10**12))
def test_a_further_row_is_of_one_source_and_each_has_its_share(parts: list[int], rows: int):
    shares = normalised(parts)
    now, then = rows_of_each(shares, rows), rows_of_each(shares, rows + 1)
    assert sorted(np.subtract(then, now).tolist()) == [0] * (len(shares) - 1) + [1]
    assert sum(now) == rows
    assert all(abs(have - share * rows) < len(shares) for have, share in zip(now, shares, strict=True))


@given(weights, st.integers(1, 5))
def test_after_as_many_rows_as_the_shares_have_in_common_each_is_exact(parts: list[int], times: int):
    assert rows_of_each(normalised(parts), times * sum(parts)) == [times * part for part in parts]


@given(weights, st.integers(0, 100), st.integers(1, 9), st.integers(1, 9))
def test_larger_batches_are_made_of_the_same_rows(parts: list[int], number: int, size: int, several: int):
    shares = normalised(parts)
    whole = rows_between(shares, number * several * size, (number + 1) * several * size)
    pieces = [
        rows_between(shares, each * size, (each + 1) * size) for each in range(number * several, (number + 1) * several)
    ]
    for source, (first, stop) in enumerate(whole):
        assert [row for piece in pieces for row in range(*piece[source])] == list(range(first, stop))


def dataset(token: int) -> Dataset:
    return Dataset.from_tokens(np.full(200, token), context=4, source=str(token))


def test_a_batch_has_of_each_source_the_rows_that_are_its_turn():
    mixture = Mixture("three", tuple(map(dataset, range(3))), (Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)))
    asked: dict[str, list[int]] = {"0": [], "1": [], "2": []}

    def draw(part: Dataset, first: int, count: int) -> Batch:
        asked[part.source] += range(first, first + count)
        tokens = np.full((count, 4), int(part.source))
        return tokens, tokens

    for number in range(6):
        tokens, targets = mixed_batch(mixture, number, batch_size=4, draw=draw)
        assert tokens.shape == targets.shape == (4, 4)
    assert asked == {"0": list(range(12)), "1": list(range(8)), "2": list(range(4))}


def test_one_source_has_every_row():
    asked: list[tuple[str, int, int]] = []

    def draw(part: Dataset, first: int, count: int) -> Batch:
        asked.append((part.source, first, count))
        return np.empty(0), np.empty(0)

    mixed_batch(dataset(7), 3, batch_size=5, draw=draw)
    assert asked == [("7", 15, 5)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a:0.7", ("a", Fraction(7, 10))),
        ("a:.25", ("a", Fraction(1, 4))),
        ("a:1", ("a", Fraction(1))),
        ("a:b:0.50", ("a:b", Fraction(1, 2))),
        ("hub:owner/name:0.1", ("hub:owner/name", Fraction(1, 10))),
        ("a", ("a", None)),
        ("a:", ("a:", None)),
        (":0.5", (":0.5", None)),
        ("a:-0.5", ("a:-0.5", None)),
        ("a:0.5.1", ("a:0.5.1", None)),
        ("hub:owner/name", ("hub:owner/name", None)),
    ],
)
def test_a_name_that_ends_in_a_colon_and_a_number_has_a_share(name: str, expected):
    assert split_share(name) == expected


def test_a_file_of_that_very_name_is_that_file_also_when_it_has_gone(tmp_path: Path):
    path = tmp_path / "a:0.5"
    path.write_text("text of the file with a colon")
    (tmp_path / "a").write_text("text of the other file")
    assert split_share(str(path)) == (str(path), None)
    assert split_share(f"{path}0") == (str(tmp_path / "a"), Fraction(1, 2))
    settled = settle_source(str(path))
    assert isinstance(settled, str)
    assert unquote(settled) == path.as_uri().replace("%3A", ":")
    assert "".join(next(open_corpus(settled).documents())) == "text of the file with a colon"
    path.unlink()
    assert split_share(settled) == (settled, None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a:0.7", "b"], r"--data b: expected a share, as in b:0.5, since another source has one"),
        (["a:0.7", "b:0.2"], r"--data a:0.7: expected shares above 0 that sum to 1, received 0.7 \+ 0.2"),
        (["a:1", "b:0"], r"expected shares above 0 that sum to 1, received 1 \+ 0"),
        (["a:7"], r"expected shares above 0 that sum to 1, received 7"),
        (["a:0.5", "a:0.5"], r"expected each source once"),
        (["a:0.5", "a:.5"], r"expected each source once"),
    ],
)
def test_shares_that_cannot_be_are_one_line(data: list[str], message: str):
    with pytest.raises(DataError, match=message):
        shares_of(data)


def test_three_thirds_are_one():
    assert shares_of(["a:0.333", "b:0.333", "c:0.333"]) == (Fraction(1, 3),) * 3
    assert shares_of(["a", "b"]) is None
    assert without_shares("a:0.5") == ["a"]


def test_sources_have_a_store_each_with_one_alphabet_and_their_own_split(tmp_path: Path):
    (tmp_path / "a.txt").write_text("abab" * 30)
    (tmp_path / "b.txt").write_text("bcbc" * 30)
    names = [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    opened = open_sources([f"{names[0]}:0.75", f"{names[1]}:0.25"], "characters")
    assert isinstance(opened, MixedStore)
    assert opened.tokenizer.state()["alphabet"] == "abc"
    assert [store.tokens[1:5].tolist() for store in opened.stores] == [[0, 1, 0, 1], [1, 2, 1, 2]]
    mixture = dataset_of(opened, context=4)
    assert isinstance(mixture, Mixture)
    assert [part.source for part in mixture.parts] == names
    assert mixture.summary()["parts"][0]["share"] == "3/4"
    assert mixture.training_tokens == sum(len(part.training) for part in mixture.parts) == 2 * (121 - 12)
    assert isinstance(open_sources(names, "characters"), TokenStore)


def test_other_shares_are_other_data(tmp_path: Path):
    parts = (dataset(1), dataset(2))
    digests = {Mixture("m", parts, (share, 1 - share)).sha256 for share in (Fraction(1, 2), Fraction(1, 3))}
    assert len({*digests, Mixture("m", parts[::-1], (Fraction(1, 2),) * 2).sha256}) == 3
