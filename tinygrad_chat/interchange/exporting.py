"""What every export states about a model: its tokenizer, its chat template, and the tokens that end its texts."""

from __future__ import annotations

from tinygrad_chat.errors import UsageError
from tinygrad_chat.runs.state import SavedModel
from tinygrad_chat.text.conversations import ChatTemplate
from tinygrad_chat.text.tokenizers import BPETokenizer, ByteTokenizer
from tinygrad_chat.text.tokenizers.turns import Turns


def exported_tokenizer(saved: SavedModel) -> BPETokenizer:
    """Return a model's tokenizer in a form that other programs know: BPE, without merges for a byte tokenizer.

    Raises UsageError for any other kind.
    """
    tokenizer = saved.tokenizer
    if isinstance(tokenizer, ByteTokenizer):
        tokens = [*(bytes([byte]) for byte in range(256)), b""]
        return BPETokenizer(tokens, [], special_tokens=tokenizer.special_tokens, pattern="gpt2")
    if not isinstance(tokenizer, BPETokenizer):
        raise UsageError(
            f"other programs cannot use a tokenizer of {tokenizer.kind}; train with --tokenizer bpe, or with bytes"
        )
    return tokenizer


def exported_turns(saved: SavedModel) -> Turns | None:
    """Return a model's chat template, None if it was not trained to chat."""
    if not saved.taught_to_chat and getattr(saved.tokenizer, "turns", None) is None:
        return None
    return ChatTemplate(saved.tokenizer).turns


def end_tokens(saved: SavedModel, tokenizer: BPETokenizer) -> list[int]:
    """Return the tokens that end a text or an answer; the one that ends an answer comes first."""
    found = ChatTemplate(saved.tokenizer).answer_end if exported_turns(saved) else tokenizer.bos
    return [found, *sorted(tokenizer.stop_tokens - {found})]
