"""The loss of each token, computed some rows at a time."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tinygrad_chat.ops.cross_entropy import token_losses


def test_token_losses_are_the_same_in_slices_and_as_a_whole(monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(0)
    logits, targets = random.normal(size=(2, 5, 7)), random.integers(-1, 7, (2, 5))
    whole = token_losses(logits, targets)
    monkeypatch.setattr(sys.modules[token_losses.__module__], "SLICE", 3 * 7)
    np.testing.assert_array_equal(token_losses(logits, targets), whole)
    shares = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    expected = [
        0 if t < 0 else -np.log(share[t]) for share, t in zip(shares.reshape(-1, 7), targets.ravel(), strict=True)
    ]
    np.testing.assert_allclose(whole.ravel(), expected)
