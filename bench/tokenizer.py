"""Tokenizers: how fast ours is beside tiktoken, tokenizers and rustbpe, what models make of it, and a gigabyte stored.

speed: seconds to train a BPE tokenizer, and megabytes a second that it encodes.

The text is the source of Python's standard library, file by file, or --text. All train with the same pattern, and all
encode with the tokenizer that ours has trained, on one core, and then on all: ours in several processes, theirs in
threads. Merges and tokens must agree before anything is timed. What is not installed is left out.

quality: bits per byte of models that are trained on pydoc for the same time, by tokenizer (`bench/token_quality.py`).
store: time and memory to tokenize a stream and to find it again (`bench/token_store.py`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench import turns
from bench.record import write_result
from bench.token_quality import RECIPES, measure_quality
from bench.token_store import measure_store
from tinygrad_chat.text.encoding_processes import encode_in_processes
from tinygrad_chat.text.tokenizers import BPETokenizer
from tinygrad_chat.text.tokenizers.bpe_training import train_bpe
from tinygrad_chat.text.tokenizers.files import write_tokenizer
from tinygrad_chat.text.tokenizers.huggingface import to_huggingface
from tinygrad_chat.text.tokenizers.splitting import PATTERNS

NAME = "tokenizer"
VOCABULARY = 4096
SPECIAL = 9  # of these
TRAIN, ONE_CORE, ALL_CORES = "train (s)", "encode, one core (MB/s)", "encode, all cores (MB/s)"
PARTS = ("speed", "quality", "store")
Row = tuple[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    turns.add_arguments(parser)
    parser.add_argument("--megabytes", type=float, default=10.0, help="of text (10)")
    parser.add_argument("--text", type=Path, help="a text in UTF-8 (the sources of the standard library)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (all)")
    parser.add_argument("--recipes", nargs="+", choices=list(RECIPES), default=list(RECIPES), help="models (both)")
    parser.add_argument("--minutes", type=float, default=1.0, help="that each model is trained for (1)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="of the models (1 2 3)")
    parser.add_argument("--stored", type=int, default=1000, help="megabytes of the store's stream (1000)")


def measure(arguments: argparse.Namespace) -> None:
    path = arguments.results / f"{NAME}.json"
    measured = {name: part for name, part in _measured_before(path).items() if name in PARTS}
    for name in arguments.parts:
        measured[name] = MEASURE[name](arguments)
    packages = tuple(name for name in ("tiktoken", "tokenizers", "rustbpe") if find_spec(name))
    command = f"{turns.command_of(NAME, arguments)} --megabytes {arguments.megabytes:g}"
    print(f"written: {write_result(NAME, command, measured, packages=packages, folder=arguments.results)}")


def _measured_before(path: Path) -> dict[str, Any]:
    """Return what other parts have measured, on an earlier day perhaps: each part says with what."""
    return json.loads(path.read_text()) if path.exists() else {}


def _measure_quality(arguments: argparse.Namespace) -> dict[str, Any]:
    rows = [
        row
        for recipe in arguments.recipes
        for row in measure_quality(arguments.minutes, recipe=recipe, seeds=arguments.seeds)
    ]
    return {"date": date.today().isoformat(), "text": "pydoc", "rows": rows}


def _measure_store(arguments: argparse.Namespace) -> dict[str, Any]:
    size = arguments.stored * 10**6
    with tempfile.TemporaryDirectory() as folder:
        learned = Path(folder) / "tokenizer.json"
        documents = _documents(arguments.text, int(arguments.megabytes * 1e6))
        write_tokenizer(train_bpe([[document] for document in documents], VOCABULARY), learned)
        rows = []
        for name, tokenizer in (("bytes", "bytes"), ("bpe", str(learned))):
            rows.append({**measure_store(size, tokenizer), "tokenizer": name})
            print(f"store of {arguments.stored} MB, {name}: {rows[-1]}")
    return {"date": date.today().isoformat(), "bytes": size, "rows": rows}


def _measure_speed(arguments: argparse.Namespace) -> dict[str, Any]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # until it is to take all cores
    documents = list(_documents(arguments.text, int(arguments.megabytes * 1e6)))
    size = sum(len(document.encode()) for document in documents)
    ours = train_bpe([[document] for document in documents], VOCABULARY)
    work = {**_training(documents), **_encoding(documents, ours)}
    _expect_equal_tokens(work)
    seconds: dict[Row, list[float]] = {row: [] for row in work}
    for row in turns.take_turns(list(work), arguments.rounds, NAME):
        os.environ["TOKENIZERS_PARALLELISM"] = str(row[0] == ALL_CORES).lower()
        began = time.perf_counter()
        work[row]()
        seconds[row].append(time.perf_counter() - began)
    rows = []
    for (what, engine), samples in seconds.items():
        middle = statistics.median(samples)
        value = middle if what == TRAIN else size / middle / 1e6
        rows.append({"what": what, "engine": engine, "value": value, "seconds": samples})
        print(f"{what:<26} {engine:<14} {value:>8.2f}")
    return {"date": date.today().isoformat(), "bytes": size, "vocabulary": VOCABULARY, "rows": rows}


MEASURE: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "speed": _measure_speed,
    "quality": _measure_quality,
    "store": _measure_store,
}


def _documents(path: Path | None, most: int) -> Iterator[str]:
    """Yield texts of `most` bytes together."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")) if path is None else [path]
    for each in paths:
        text = each.read_text(encoding="utf-8", errors="replace")[:most]
        most -= len(text.encode())
        yield text
        if most <= 0:
            return


def _training(documents: Sequence[str]) -> dict[Row, Callable[[], Any]]:
    pattern = PATTERNS["nanochat"]
    work: dict[Row, Callable[[], Any]] = {
        (TRAIN, turns.OURS): lambda: train_bpe([[document] for document in documents], VOCABULARY).tokens
    }
    if find_spec("rustbpe"):
        work[TRAIN, "rustbpe"] = lambda: (
            train_bpe([[document] for document in documents], VOCABULARY, trainer="rustbpe").tokens
        )
    if find_spec("tokenizers"):
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

        def by_tokenizers() -> int:
            theirs = Tokenizer(models.BPE())
            split = pre_tokenizers.Split(Regex(pattern), "isolated")
            letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            theirs.pre_tokenizer = pre_tokenizers.Sequence([split, letters])
            alphabet = pre_tokenizers.ByteLevel.alphabet()
            trainer = trainers.BpeTrainer(
                vocab_size=VOCABULARY - SPECIAL, initial_alphabet=alphabet, show_progress=False
            )
            theirs.train_from_iterator(documents, trainer)
            return theirs.get_vocab_size() + SPECIAL

        work[TRAIN, "tokenizers"] = by_tokenizers
    return work


def _encoding(documents: Sequence[str], ours: BPETokenizer) -> dict[Row, Callable[[], list[list[int]]]]:
    cores = os.cpu_count() or 1
    state = ours.state()

    def alone() -> Any:
        fresh = BPETokenizer.from_state(state)  # which remembers no words
        return [fresh.encode(document) for document in documents]

    def together() -> Any:
        found: list[list[np.ndarray]] = []
        for tokens in encode_in_processes([[document] for document in documents], ours, cores):
            if tokens is None:
                found.append([])
            else:
                found[-1].append(tokens)
        return [np.concatenate([np.empty(0, ours.dtype), *parts]) for parts in found]

    work: dict[Row, Callable[[], Any]] = {(ONE_CORE, turns.OURS): alone, (ALL_CORES, turns.OURS): together}
    if find_spec("tiktoken"):
        import tiktoken

        ranks = {token: number for number, token in enumerate(ours.tokens) if token}
        theirs = tiktoken.Encoding("ours", pat_str=PATTERNS["nanochat"], mergeable_ranks=ranks, special_tokens={})
        work[ONE_CORE, "tiktoken"] = lambda: list(map(theirs.encode_ordinary, documents))
        work[ALL_CORES, "tiktoken"] = lambda: theirs.encode_ordinary_batch(list(documents), num_threads=cores)
    if find_spec("tokenizers"):
        from tokenizers import Tokenizer

        read = Tokenizer.from_str(to_huggingface(ours).decode())
        for what in (ONE_CORE, ALL_CORES):
            work[what, "tokenizers"] = lambda: [each.ids for each in read.encode_batch_fast(list(documents))]
    return work


def _expect_equal_tokens(work: dict[Row, Callable[[], Any]]) -> None:
    turns.progress(f"{NAME}: comparing merges and tokens")
    for (what, engine), run in work.items():
        found, expected = run(), work[what, turns.OURS]()
        if isinstance(found, int):  # which breaks ties otherwise: the tests compare its merges with ours
            equal = found == len(expected)
        else:
            equal = len(found) == len(expected) and all(map(np.array_equal, found, expected))
        if not equal:
            raise turns.BenchmarkError(f"{what}: expected of {engine} what ours gives; nothing was timed")
