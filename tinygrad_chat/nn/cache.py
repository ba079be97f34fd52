"""The key/value cache: what attention has already computed for earlier tokens, kept for the next one."""

from __future__ import annotations

from typing import Any

from tinygrad_chat.backend import Backend


class KeyValueCache:
    """Keys and values of `length` tokens so far, for every layer of a model, in buffers of `capacity` positions.

    Each layer hands its new keys and values (B, T, width) to `extend` and gets back those of all tokens; after the
    last layer, `advance` counts the new tokens. It stands beside the layers because models must be able to make one;
    only `sampling` drives it.
    """

    def __init__(self, layers: int, batch: int, capacity: int, width: int, *, backend: Backend, dtype: Any) -> None:
        shape = (layers, 2, batch, capacity, width)
        self._buffer = backend.xp.empty(shape, dtype)
        self.capacity = capacity
        self.length = 0
        self.last_embedding: Any = None
        """Of the newest token (B, 1, width), for models that smear it into the next."""
        self.document_start: Any = 0
        """The position (B, 1) at which the newest token's document begins, for models that see no other."""

    def extend(self, layer: int, key: Any, value: Any) -> tuple[Any, Any]:
        """Store the new tokens' keys and values (arrays) for a layer; return those of all tokens, as views."""
        end = self.length + key.shape[1]
        keys, values = self._buffer[layer]
        keys[:, self.length : end] = key
        values[:, self.length : end] = value
        return keys[:, :end], values[:, :end]

    def advance(self, tokens: int) -> None:
        """Count `tokens` new positions as stored in every layer."""
        self.length += tokens

    def clear(self) -> None:
        """Forget everything, keeping the memory."""
        self.length = 0
        self.last_embedding, self.document_start = None, 0
