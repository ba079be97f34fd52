"""Our weights under the names of the peers, which keep queries, keys and values in one matrix."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def renamed(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the weights of our GPT, or anything of the same names and shapes, as a peer names them."""
    weights = {}
    for name, array in state.items():
        path, _, last = name.rpartition(".")
        path = path.replace(".attention.", ".").replace(".feed_forward.", ".")
        weights[f"{path}.weight" if last == "gain" else f"{path}.{last}"] = array
    for block in {name.rsplit(".", 2)[0] for name in weights if name.endswith(".query.weight")}:
        parts = [weights.pop(f"{block}.{part}.weight") for part in ("query", "key", "value")]
        weights[f"{block}.query_key_value.weight"] = np.concatenate(parts)
    return weights
