"""The parameters that AdamW updates beside Muon, in nanochat's groups (Karpathy, MIT); docs/upstream_analysis.md 4."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Parameters that share AdamW settings. Their learning rate is `scale` times the optimiser's, which is Muon's."""

    name: str
    parameters: tuple[str, ...]
    scale: float
    betas: tuple[float, float]
    weight_decay: float


def adamw_groups(
    roles: Mapping[str, str], *, lr: float, embedding_lr: float, head_lr: float, scalar_lr: float
) -> list[Group]:
    """Sort a model's parameters, given by name and role, into AdamW's groups; Muon updates those in no group.

    The roles are those of models/parameter_table.py. `lr` is the optimiser's peak learning rate, the others those of
    the groups, all on the same scale: scaling for the model's width and the batch size is left to the caller. Empty
    groups are omitted.

    >>> roles = {"token_embedding.weight": "embedding", "blocks.0.attention.key.weight": "matrix"}
    >>> roles["head.weight"] = "head"
    >>> groups = adamw_groups(roles, lr=0.02, embedding_lr=0.3, head_lr=0.008, scalar_lr=0.5)
    >>> [(group.name, group.parameters, round(group.scale, 3)) for group in groups]
    [('head', ('head.weight',), 0.4), ('embedding', ('token_embedding.weight',), 15.0)]
    """
    table = [
        # group, the roles in it, learning rate, betas, decay
        ("head", ("head",), head_lr, (0.8, 0.96), 0.01),
        ("embedding", ("embedding", "position_embedding"), embedding_lr, (0.8, 0.995), 0.001),
        ("value embeddings", ("value_embedding",), 0.5 * embedding_lr, (0.8, 0.995), 0.01),
        ("residual scales", ("residual_scale",), 0.01 * scalar_lr, (0.8, 0.95), 0.05),
        ("embedding scales", ("embedding_scale",), scalar_lr, (0.96, 0.95), 0.0),
        ("smear", ("smear_gate", "smear_scale", "backout_scale"), 0.2, (0.8, 0.95), 0.0),  # a fixed rate
        ("vectors", ("gain", "bias"), 0.01 * scalar_lr, (0.8, 0.95), 0.0),  # nanochat has none
    ]
    groups = []
    for name, members, rate, betas, decay in table:
        found = tuple(parameter for parameter, role in roles.items() if role in members)
        if found:
            groups.append(Group(name, found, rate / lr, betas, decay))
    return groups
