"""Byte-pair encoding: each frequent run of bytes is one token, and any text can be encoded.

>>> tokenizer = BPETokenizer.from_merges([(104, 105), (32, 256)])
>>> tokenizer.encode("hi hi").tolist(), tokenizer.tokens[257]
([256, 257], b' hi')
>>> tokenizer.special_tokens["<|bos|>"]
258
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np

from tinygrad_chat.errors import ConfigError, VocabularyError
from tinygrad_chat.text.tokenizers.merging import Merges, merge_endless
from tinygrad_chat.text.tokenizers.normalization import normalized
from tinygrad_chat.text.tokenizers.splitting import CHUNK, Part, Splitter
from tinygrad_chat.text.tokenizers.tokenizer import BOS, characters_of
from tinygrad_chat.text.tokenizers.turns import Turns

CHAT_TOKENS = (
    *(BOS, "<|user_start|>", "<|user_end|>", "<|assistant_start|>", "<|assistant_end|>"),
    *("<|python_start|>", "<|python_end|>", "<|output_start|>", "<|output_end|>"),
)
"""nanochat's special tokens, in its order: they begin a document, and begin and end each part of a conversation."""

MAX_TOKENS = 1 << 20
MAX_MERGES = 1 << 21
MAX_KEPT = 1 << 17  # pre-tokens whose tokens are cached
LONGEST_KEPT = 64  # characters of a cached pre-token


class BPETokenizer:
    """Text to tokens by merging bytes, within the pre-tokens into which a pattern of `splitting.PATTERNS` splits it.

    `tokens` has the bytes of each token, none for special ones; a byte without a token is dropped from a text, as in
    other programs. `merges` are pairs of tokens in the order of their ranks. `special_tokens` stand for no text, and
    `added_tokens` for their name: `encode` yields neither unless asked to. `bos` names the token that begins documents.
    With `ignore_merges`, a pre-token that is itself a token is not merged. With `normalize`, text is first converted to
    Unicode NFC. Besides `bos`, any of the special tokens named in `ends` ends a text. `turns` is the chat template that
    an imported model was trained with. Raises ConfigError for parts that do not fit together.
    """

    kind = "bpe"
    slow = True

    def __init__(
        self,
        tokens: Sequence[bytes],
        merges: Sequence[tuple[int, int]],
        *,
        special_tokens: Mapping[str, int],
        added_tokens: Mapping[str, int] | None = None,
        bos: str = BOS,
        pattern: str = "nanochat",
        ignore_merges: bool = False,
        normalize: bool = False,
        ends: Sequence[str] = (),
        turns: Turns | None = None,
    ) -> None:
        self.tokens = list(tokens)
        self.merges = list(merges)
        self.special_tokens: Mapping[str, int] = dict(special_tokens)
        self.added_tokens: Mapping[str, int] = dict(added_tokens or {})
        self.bos_name, self.pattern, self.ignore_merges, self.normalize = bos, pattern, ignore_merges, normalize
        self.end_names, self.turns = tuple(ends), turns
        self.size = len(self.tokens)
        self._splitter = Splitter(pattern)
        named = set(self.special_tokens.values()) | set(self.added_tokens.values())
        ids = {token: number for number, token in enumerate(self.tokens) if token and number not in named}
        _check(self, ids, named)
        self._token_of_byte = {token[0]: number for token, number in ids.items() if len(token) == 1}
        self._left_out = bytes(byte for byte in range(256) if byte not in self._token_of_byte)
        self._whole = ids if ignore_merges else {}
        self._merges = Merges(self.merges, [ids[tokens[left] + tokens[right]] for left, right in self.merges])
        self._lengths = list(map(len, self.tokens))
        self.dtype = np.dtype(np.min_scalar_type(self.size - 1))
        self._known = _Known(self._encode_piece)

    @classmethod
    def from_merges(
        cls,
        merges: Sequence[tuple[int, int]],
        *,
        alphabet: Sequence[int] = range(256),
        special_tokens: Sequence[str] = CHAT_TOKENS,
        pattern: str = "nanochat",
    ) -> BPETokenizer:
        """Make a tokenizer: first the bytes of `alphabet`, then the tokens that merges make, then special ones."""
        tokens = [bytes([byte]) for byte in alphabet]
        for left, right in merges:
            tokens.append(tokens[left] + tokens[right])
        special = {name: len(tokens) + number for number, name in enumerate(special_tokens)}
        return cls(
            [*tokens, *[b""] * len(special)], merges, special_tokens=special, pattern=pattern, ignore_merges=True
        )

    @property
    def bos(self) -> int:
        """The token with which each document begins."""
        return self.special_tokens[self.bos_name]

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The tokens that end a text."""
        return frozenset({self.bos, *(self.special_tokens[name] for name in self.end_names)})

    def for_chats(self, turns: Turns | None, ends: Sequence[str]) -> BPETokenizer:
        """Return the same tokenizer with another chat template, and other tokens that end a text."""
        changed = copy.copy(self)
        changed.turns, changed.end_names = turns, tuple(name for name in ends if name != self.bos_name)
        return changed

    def encode(self, text: str, *, special: Collection[str] = ()) -> np.ndarray:
        """Return the tokens of `text`, in the smallest unsigned type that holds the vocabulary.

        The name of a special token is plain text unless it is listed in `special`: use that only for text you wrote
        yourself. Surrogate escapes, which stand for bytes that are not UTF-8, are encoded as those bytes. Raises
        VocabularyError for other surrogates, and for a name in `special` that is no token.
        """
        if not special:
            if len(text) < CHUNK and not self.normalize:  # short enough to split at once
                return self._encoded(self._splitter.split(text))
            return self._joined(self.encode_document([text]))
        known = {**self.special_tokens, **self.added_tokens}
        unknown = [name for name in special if name not in known]
        if unknown:
            raise VocabularyError(f"encode: expected names of special tokens, received {unknown[0]!r:.80}")
        longest_first = sorted(special, key=len, reverse=True)
        parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
        named = [np.array([known[part]], self.dtype) if at % 2 else self.encode(part) for at, part in enumerate(parts)]
        return self._joined(named)

    def encode_document(self, pieces: Iterable[str]) -> Iterator[np.ndarray]:
        """Yield the tokens of a text that comes in pieces cut anywhere: the same as those of the whole text."""
        if self.normalize:
            pieces = normalized(pieces)
        stream = self._splitter.split_document(pieces)
        for found in stream:
            if not isinstance(found, Part):
                yield self._encoded(found)
                continue
            parts = map(self._raw, _parts(found, stream))
            for tokens in merge_endless(self._merge, parts, self.tokens):
                yield np.array(tokens, self.dtype)

    def cut_document(self, pieces: Iterable[str]) -> Iterator[str]:
        """Yield the same text cut only between pre-tokens: each piece can be encoded in any process."""
        parts: list[str] = []
        for found in self._splitter.split_document(normalized(pieces) if self.normalize else pieces):
            parts += [found.text] if isinstance(found, Part) else found
            if not isinstance(found, Part) or found.last:
                yield "".join(parts)
                parts = []

    def decode_bytes(self, tokens: Iterable[int]) -> bytes:
        """Return the bytes that the tokens stand for, even if they are not valid UTF-8."""
        return b"".join(self._bytes_of(tokens))

    def decode_stream(self, tokens: Iterable[int]) -> Iterator[str]:
        """Yield the text of each token once its characters are complete; invalid UTF-8 becomes U+FFFD."""
        return characters_of(self._bytes_of(tokens))

    def decode(self, tokens: Iterable[int]) -> str:
        """Return the text of all the tokens."""
        return self.decode_bytes(tokens).decode("utf-8", "replace")

    def bytes_per_token(self) -> np.ndarray:
        """Return how many bytes each token stands for, (V,) integers; 0 for special ones."""
        return np.array(self._lengths)

    def state(self) -> dict[str, Any]:
        """Return all that defines this tokenizer, ready for JSON: tokens in hexadecimal, merges as pairs of numbers."""
        return {
            "kind": self.kind,
            "pattern": self.pattern,
            "tokens": " ".join(token.hex() for token in self.tokens),
            "merges": ",".join(f"{left} {right}" for left, right in self.merges),
            "special_tokens": dict(self.special_tokens),
            "added_tokens": dict(self.added_tokens),
            "bos": self.bos_name,
            "ignore_merges": self.ignore_merges,
            "normalize": self.normalize,
            **({"ends": list(self.end_names)} if self.end_names else {}),
            **({"turns": self.turns.state()} if self.turns else {}),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> BPETokenizer:
        """Make the tokenizer that an untrusted `state` describes. Raises ConfigError if it describes none."""
        kinds = {"pattern": str, "tokens": str, "merges": str, "special_tokens": dict, "added_tokens": dict, "bos": str}
        kinds |= {"ignore_merges": bool, "normalize": bool}
        for name, kind in kinds.items():
            if type(state.get(name)) is not kind:
                raise ConfigError(f"{name}: expected {kind.__name__}, received {type(state.get(name)).__name__}")
        if state["tokens"].count(" ") >= MAX_TOKENS or state["merges"].count(",") >= MAX_MERGES:
            raise ConfigError(f"expected at most {MAX_TOKENS} tokens and {MAX_MERGES} merges")
        try:
            tokens = [bytes.fromhex(token) for token in state["tokens"].split(" ")]
            pairs = [pair.split(" ") for pair in state["merges"].split(",")] if state["merges"] else []
            merges = [(int(left), int(right)) for left, right in pairs]
        except ValueError as error:
            raise ConfigError(f"tokens, merges: expected hexadecimal tokens and pairs of numbers ({error})") from error
        names = ("special_tokens", "added_tokens", "bos", "pattern", "ignore_merges", "normalize")
        ends, turns = state.get("ends", []), state.get("turns")
        named = isinstance(ends, list) and all(isinstance(name, str) for name in ends)
        if not named or not isinstance(turns, dict | None):
            raise ConfigError("ends, turns: expected a list of names and an object")
        found = Turns.from_state(turns) if turns else None
        return cls(tokens, merges, ends=ends, turns=found, **{name: state[name] for name in names})

    def _encoded(self, pieces: Iterable[str]) -> np.ndarray:
        return np.frombuffer(b"".join(map(self._known.__getitem__, pieces)), self.dtype)

    def _encode_piece(self, piece: str) -> bytes:
        """Return the tokens of a pre-token as the bytes of an array of `dtype`."""
        content = self._raw(piece)
        whole = self._whole.get(content)
        return np.array(self._merge(content) if whole is None else [whole], self.dtype).tobytes()

    def _raw(self, text: str) -> bytes:
        content = _raw(text)
        return content.translate(None, self._left_out) if self._left_out else content

    def _merge(self, content: bytes) -> list[int]:
        return self._merges.merge([self._token_of_byte[byte] for byte in content])

    def _bytes_of(self, tokens: Iterable[int]) -> Iterator[bytes]:
        for token in tokens:
            if not 0 <= token < self.size:
                raise VocabularyError(f"decode: expected tokens from 0 to {self.size - 1}, received {token}")
            yield self.tokens[token]

    def _joined(self, arrays: Iterable[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.empty(0, self.dtype), *arrays])


class _Known(dict[str, bytes]):
    """A cache of the tokens of pre-tokens, as text repeats its words. It is cleared when it is full."""

    def __init__(self, encode: Callable[[str], bytes]) -> None:
        super().__init__()
        self._encode = encode

    def __missing__(self, piece: str) -> bytes:
        tokens = self._encode(piece)
        if len(piece) <= LONGEST_KEPT:
            if len(self) >= MAX_KEPT:
                self.clear()
            self[piece] = tokens
        return tokens


def _raw(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise VocabularyError(f"U+{ord(text[error.start]):04X} is an unpaired surrogate, not a character") from error


def _parts(first: Part, stream: Iterator[list[str] | Part]) -> Iterator[str]:
    """Yield the text of a piece that comes in parts: the `first`, and those in `stream` up to the last one."""
    yield first.text
    while not first.last:
        first = cast(Part, next(stream))
        yield first.text


def _check(tokenizer: BPETokenizer, ids: Mapping[bytes, int], named: Collection[int]) -> None:
    """Raise ConfigError for a tokenizer whose parts do not fit together; `ids` are those of ordinary tokens."""
    tokens, size = tokenizer.tokens, tokenizer.size
    names = [*tokenizer.special_tokens.items(), *tokenizer.added_tokens.items()]
    if not all(isinstance(name, str) and name and type(number) is int for name, number in names):
        raise ConfigError("special tokens: expected an id for each name")
    if not all(0 <= number < size for _, number in names) or len(named) < len(names):
        raise ConfigError(f"special tokens: expected a unique id below {size} for each")
    if any(tokens[number] for number in tokenizer.special_tokens.values()):
        raise ConfigError("special tokens: expected no bytes, as they represent no text")
    if any(tokens[number] != _raw(name) for name, number in tokenizer.added_tokens.items()):
        raise ConfigError("added tokens: expected the bytes of their names")
    if tokenizer.bos_name not in tokenizer.special_tokens:
        raise ConfigError(f"bos: expected the name of a special token, received {tokenizer.bos_name!r:.80}")
    for name in tokenizer.end_names:
        if name not in tokenizer.special_tokens:
            raise ConfigError(f"ends: expected names of special tokens, received {name!r:.80}")
    if len(ids) < sum(bool(token) for number, token in enumerate(tokens) if number not in named):
        raise ConfigError("tokens: expected each once")
    for left, right in tokenizer.merges:
        fits = 0 <= left < size and 0 <= right < size and left not in named and right not in named
        if not (fits and tokens[left] and tokens[right] and tokens[left] + tokens[right] in ids):
            raise ConfigError(f"merges: expected pairs of tokens that make a token, received ({left}, {right})")
    if len(set(tokenizer.merges)) < len(tokenizer.merges):
        raise ConfigError("merges: expected each pair once")
