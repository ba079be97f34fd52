"""Reads and writes `tokenizer.json`, the file of Hugging Face's library `tokenizers`.

In it, bytes are written as letters: printable ones as themselves, the others from U+0100 on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tinygrad_chat.errors import ConfigError, FormatError
from tinygrad_chat.schema import parse_json
from tinygrad_chat.text.tokenizers.bpe import MAX_MERGES, MAX_TOKENS, BPETokenizer
from tinygrad_chat.text.tokenizers.bpe_training import HUGGING_FACE
from tinygrad_chat.text.tokenizers.splitting import PATTERNS
from tinygrad_chat.text.tokenizers.tokenizer import BOS

BETWEEN = "<|endoftext|>"  # stands between documents
_BEGINNINGS = (BOS, "<|begin_of_text|>", "<s>", BETWEEN)  # names of the token that begins documents, best first
_UNPRINTABLE = HUGGING_FACE[188:]
_BYTE_OF = {chr(byte): byte for byte in HUGGING_FACE[:188]} | {chr(256 + at): b for at, b in enumerate(_UNPRINTABLE)}
_LETTER_OF = {byte: letter for letter, byte in _BYTE_OF.items()}

_CONTRACTIONS = "'s|'t|'re|'ve|'m|'ll|'d"
_OTHER_SPELLINGS = {
    rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": name
    for name, digits in {"llama3": "{1,3}", "nanochat": "{1,2}", "qwen2": ""}.items()
} | {
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+": (
        "nanochat"
    ),
    rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+": "gpt2",
}
_PATTERN_OF = {spelling: name for name, spelling in PATTERNS.items()} | _OTHER_SPELLINGS
"""The name of each pattern, by all known spellings of it, which split alike."""


def from_huggingface(content: bytes, *, bos: str | None = None, size: int = 0) -> BPETokenizer:
    """Make the tokenizer that a `tokenizer.json` describes, padded to at least `size` tokens, which stand for nothing.

    Documents begin with the token that it puts before every text; without one, with <|endoftext|>, which stands between
    documents; without that, with the one named `bos`. Raises ConfigError, naming the key, for anything invalid or
    unsupported.
    """
    try:
        root = parse_json(content, dict[str, Any], source="the file")
    except FormatError as error:
        raise ConfigError(str(error)) from error
    return from_description(root, bos=bos, size=size)


def from_description(root: Mapping[str, Any], *, bos: str | None = None, size: int = 0) -> BPETokenizer:
    """Make the tokenizer from the parsed contents of such a file; see `from_huggingface`."""
    if size > MAX_TOKENS:
        raise ConfigError(f"expected at most {MAX_TOKENS:,} tokens, received {size:,}")
    model = _table(root.get("model"), "model")
    _expect_plain(root, model)
    added = [_table(each, "added_tokens") for each in _list(root.get("added_tokens") or [], "added_tokens")]
    special = {_text(each, "content"): _number(each.get("id")) for each in added if each.get("special") is not False}
    others = {_text(each, "content"): _number(each.get("id")) for each in added if each.get("special") is False}
    if len(special) + len(others) < len(added):
        raise ConfigError("added_tokens: expected each name once")
    ordinary = [name for name in others if name.isspace() or name.isalnum()]
    if ordinary:  # such as GPT-NeoX's runs of blanks: ours would encode them by merges, not as added tokens
        raise ConfigError(f"added_tokens: {ordinary[0]!r:.80} occurs in ordinary text; such tokens are not supported")
    named = set(special.values()) | set(others.values())
    vocabulary = _table(model.get("vocab"), "model: vocab")
    numbers = {letters: _number(number) for letters, number in vocabulary.items()}
    tokens = [b""] * max(size, 1 + max([*numbers.values(), *named], default=0))
    for name, number in others.items():
        tokens[number] = name.encode("utf-8", "surrogatepass")
    for letters, number in numbers.items():
        if number not in named:
            if tokens[number]:
                raise ConfigError(f"model: vocab: expected a unique id for {letters!r:.80}")
            tokens[number] = _bytes(letters)
    return BPETokenizer(
        tokens,
        _merges(model.get("merges"), numbers),
        special_tokens=special,
        added_tokens=others,
        bos=_before_text(root.get("post_processor"), special) or bos or _beginning(special),
        pattern=_pattern(root.get("pre_tokenizer")),
        ignore_merges=model.get("ignore_merges") is True,
        normalize=_normalizes(root.get("normalizer")),
    )


def to_huggingface(tokenizer: BPETokenizer) -> bytes:
    """Return the `tokenizer.json` of a tokenizer: with it, the library `tokenizers` gives the same tokens."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    named = [(number, name, True) for name, number in tokenizer.special_tokens.items()]
    named += [(number, name, False) for name, number in tokenizer.added_tokens.items()]
    numbers = {number for number, _, _ in named}
    letters = letters_of(tokenizer)
    root = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": name, **flags, "special": special} for number, name, special in sorted(named)
        ],
        "normalizer": {"type": "NFC"} if tokenizer.normalize else None,
        "pre_tokenizer": pre_tokenizer_of(tokenizer.pattern),
        "post_processor": None,
        "decoder": _byte_level(use_regex=True),
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": tokenizer.ignore_merges,
            "vocab": {
                text: number for number, text in enumerate(letters) if text and number not in numbers
            },
            "merges": [[letters[left], letters[right]] for left, right in tokenizer.merges],
        },
    }  # fmt: skip
    return json.dumps(root, ensure_ascii=False, indent=1).encode()


def letters_of(tokenizer: BPETokenizer) -> list[str]:
    """Return the bytes of each token as letters."""
    return ["".join(map(_LETTER_OF.__getitem__, token)) for token in tokenizer.tokens]


def _expect_plain(root: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raise ConfigError for a kind of tokenizer, or a setting of it, that ours does not support."""
    if model.get("type", "BPE") != "BPE":
        raise ConfigError(f"model: expected BPE, received {model.get('type')!r:.80}")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(name):
            raise ConfigError(f"model: {name} is not supported, received {model[name]!r:.80}")
    decoder = root.get("decoder")
    if decoder is not None and _kind(decoder) != "ByteLevel":
        raise ConfigError(f"decoder: expected ByteLevel, received {_kind(decoder)}")


def _merges(merges: Any, numbers: Mapping[str, int]) -> list[tuple[int, int]]:
    pairs = [each.split(" ") if isinstance(each, str) else each for each in _list(merges, "model: merges")]
    if len(pairs) > MAX_MERGES:
        raise ConfigError(f"model: merges: expected at most {MAX_MERGES}, received {len(pairs)}")
    try:
        return [(numbers[left], numbers[right]) for left, right in pairs]
    except (KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"model: merges: expected pairs of tokens of the vocabulary ({error!s:.80})") from error


def _pattern(pre_tokenizer: Any) -> str:
    """Return the name of the pattern by which a pre-tokenizer splits. Raises ConfigError for one that is unknown."""
    parts = _flat(pre_tokenizer, "pretokenizers")
    kinds = [_kind(part) for part in parts]
    if not kinds or kinds[-1] != "ByteLevel":
        raise ConfigError(f"pre_tokenizer: expected ByteLevel, received {', '.join(kinds) or 'none'}"[:200])
    if parts[-1].get("add_prefix_space") is True:
        raise ConfigError("pre_tokenizer: ByteLevel: add_prefix_space is not supported")
    by_itself = parts[-1].get("use_regex", True) is True
    if kinds == ["ByteLevel"] and by_itself:
        return "gpt2"
    if kinds == ["Digits", "ByteLevel"] and by_itself and parts[0].get("individual_digits") is True:
        return "smollm2"
    if kinds == ["Split", "ByteLevel"] and not by_itself:
        split = parts[0]
        spelling = _table(split.get("pattern"), "pre_tokenizer: pattern").get("Regex")
        matches_are_pieces = (split.get("behavior"), split.get("invert", False)) in _BEHAVIOURS
        if matches_are_pieces and isinstance(spelling, str) and spelling in _PATTERN_OF:
            return _PATTERN_OF[spelling]
        raise ConfigError(f"pre_tokenizer: Split by an unknown pattern, {spelling!r:.80}; known: {', '.join(PATTERNS)}")
    raise ConfigError(f"pre_tokenizer: expected one of {', '.join(PATTERNS)}, received {', '.join(kinds)}"[:200])


_BEHAVIOURS = [("Isolated", False), ("Removed", True)]  # both alike, as the patterns leave nothing between matches


def pre_tokenizer_of(pattern: str) -> dict[str, Any]:
    """Return the pre-tokenizer that splits text by a pattern."""
    if pattern == "gpt2":
        return _byte_level(use_regex=True)
    if pattern == "smollm2":
        first: dict[str, Any] = {"type": "Digits", "individual_digits": True}
    else:
        first = {"type": "Split", "pattern": {"Regex": PATTERNS[pattern]}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [first, _byte_level(use_regex=pattern == "smollm2")]}


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


def _normalizes(normalizer: Any) -> bool:
    parts = [] if normalizer is None else _flat(normalizer, "normalizers")
    unknown = [_kind(part) for part in parts if _kind(part) != "NFC"]
    if unknown:
        raise ConfigError(f"normalizer: expected NFC or none, received {unknown[0]}")
    return bool(parts)


def _before_text(processor: Any, special: Mapping[str, int]) -> str | None:
    """Return the special token that a post-processor puts before every text, or else the one between documents."""
    parts = [] if processor is None else _flat(processor, "processors")
    for part in parts:
        if _kind(part) == "TemplateProcessing":
            first = next(iter(_list(part.get("single"), "post_processor: single")), None)
            found = first.get("SpecialToken") if isinstance(first, dict) else None
            if isinstance(found, dict) and found.get("id") in special:
                return found["id"]
    return BETWEEN if BETWEEN in special else None


def _beginning(special: Mapping[str, int]) -> str:
    found = [name for name in _BEGINNINGS if name in special]
    if not found:
        raise ConfigError(f"added_tokens: expected one of {', '.join(_BEGINNINGS)}, with which documents begin")
    return found[0]


def _bytes(letters: str) -> bytes:
    try:
        return bytes(map(_BYTE_OF.__getitem__, letters))
    except KeyError as error:
        raise ConfigError(f"model: vocab: expected bytes written as letters, received {letters!r:.80}") from error


def _flat(part: Any, parts: str) -> list[dict[str, Any]]:
    """Return the parts of a Sequence, one level deep; anything else is its only part."""
    part = _table(part, parts)
    return [_table(each, parts) for each in _list(part.get(parts), parts)] if _kind(part) == "Sequence" else [part]


def _kind(part: Any) -> str:
    return f"{_table(part, 'a part').get('type')!s:.40}"


def _table(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{what}: expected an object, received {type(value).__name__}")
    return value


def _list(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"{what}: expected a list, received {type(value).__name__}")
    return value


def _text(table: Mapping[str, Any], key: str) -> str:
    if not isinstance(table.get(key), str):
        raise ConfigError(f"added_tokens: expected text as {key}, received {type(table.get(key)).__name__}")
    return table[key]


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < MAX_TOKENS:
        raise ConfigError(f"expected a token id below {MAX_TOKENS}, received {value!r:.40}")
    return value
