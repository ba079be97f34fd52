"""`--data a.jsonl:0.7 --data b/:0.3`: several sources, each with its share of the rows of all batches.

A name that ends in a colon and a number has a share, unless there is a file of exactly that name. If there is a file
`a:0.5`, write the share of `a` in another way: `a:0.50` is half of the rows from the file `a`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from tinygrad_chat.errors import DataError
from tinygrad_chat.files import is_there
from tinygrad_chat.text.finding import path_of

_SHARED = re.compile(r"(?s)(.+):(\d+(?:\.\d*)?|\.\d+)")
NEARLY_ONE = Fraction(1, 100)  # by which the sum may miss 1, as three times 0.33 does


def split_share(name: str) -> tuple[str, Fraction | None]:
    """Return the name in a `--data`, and its share as an exact fraction, None if it has none.

    >>> split_share("a.jsonl:0.7"), split_share("a.jsonl")
    (('a.jsonl', Fraction(7, 10)), ('a.jsonl', None))
    """
    found = _SHARED.fullmatch(name)
    if found is None or is_there(path_of(name)):
        return name, None
    return found[1], Fraction(found[2])


def looks_shared(name: str) -> bool:
    """Return whether a name ends like one with a share; it has one unless there is a file of that name."""
    return _SHARED.fullmatch(name) is not None


def without_shares(data: str | Sequence[str]) -> list[str]:
    """Return the names alone."""
    return [split_share(name)[0] for name in ([data] if isinstance(data, str) else data)]


def shares_of(data: str | Sequence[str]) -> tuple[Fraction, ...] | None:
    """Return the share of each source, which sum to 1; None if they have none and are read one after the other.

    Raises DataError if only some have a share, one is 0, a source is repeated, or the sum is not 1.
    """
    names = [data] if isinstance(data, str) else list(data)
    given = {name: split_share(name) for name in names}
    shares = [share for _, share in given.values() if share is not None]
    if not shares:
        return None
    bare = [name for name, (_, share) in given.items() if share is None]
    if bare:
        raise DataError(f"--data {bare[0]}: expected a share, as in {bare[0]}:0.5, since another source has one")
    if len(given) < len(names) or len({source for source, _ in given.values()}) < len(names):
        raise DataError(f"--data {names[0]}: expected each source once, received one twice")
    total = sum(shares)
    if not all(shares) or abs(total - 1) > NEARLY_ONE:
        written = " + ".join(name.rpartition(":")[2] for name in names)
        raise DataError(f"--data {names[0]}: expected shares above 0 that sum to 1, received {written}")
    return tuple(share / total for share in shares)


def rows_of_each(shares: Sequence[Fraction], rows: int) -> list[int]:
    """Return how many of the first `rows` of all batches come from each source.

    Each further row adds one to a single source, and no source is ever off its share by as many rows as there are
    sources. So the composition of a batch follows from its number alone.

    >>> [rows_of_each([Fraction(7, 10), Fraction(3, 10)], rows) for rows in (1, 2, 10)]
    [[0, 1], [1, 1], [7, 3]]
    """
    counts, left = [], Fraction(1)
    for share in shares[:-1]:
        counts.append(int(rows * share / left))
        rows -= counts[-1]
        left -= share
    return [*counts, rows]


def rows_between(shares: Sequence[Fraction], first: int, stop: int) -> list[tuple[int, int]]:
    """Return, for each source, the range of its own rows that are among rows `first` to `stop` (exclusive)."""
    before, after = (rows_of_each(shares, rows) for rows in (first, stop))
    return list(zip(before, after, strict=True))
