"""Muon for the matrices of the blocks, AdamW for everything else: nanochat's optimiser (Karpathy, MIT).

Muon (Jordan et al., kellerjordan.github.io/posts/muon) moves a matrix by the orthogonal matrix nearest to its mean
gradient: equally far in all directions, however unequal the gradient is in them. nanochat first gives rows equal norms
(MuonEq, arXiv:2603.28254), orthogonalises by the Polar Express (Amsel et al., arXiv:2505.16932), restores the norm
(Muon+, arXiv:2602.21545), evens out the sizes of row updates over the steps (NorMuon, arXiv:2510.05491) and decays only
weights that the step does not enlarge. docs/upstream_analysis.md, chapter 4, has the formulas.

Shapes: every matrix is (R, K), outputs by inputs; each function also takes a stack of them, (..., R, K).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_chat.backend import array_module
from tinygrad_chat.errors import ShapeError
from tinygrad_chat.optim.adamw import ADAMW_SCALARS, adamw_scalars, adamw_update
from tinygrad_chat.optim.groups import Group
from tinygrad_chat.optim.optimizer import Movable, Optimizer, StepScalars, if_finite, scaled
from tinygrad_chat.optim.polar_express import orthogonalize
from tinygrad_chat.optim.schedule import MOMENTUM_WARMUP, Schedule
from tinygrad_chat.optim.state import FLUSH_EVERY, flush_negligible, load_state, state_of
from tinygrad_chat.option import expect


def even_out(x: Any, square: Any, *, beta_2: float) -> tuple[Any, Any]:
    """Divide each row, or each column if R < K, by the root of its running mean square; keep an orthogonal norm.

    x (R, K), square (R, 1) if R >= K, else (1, K) -> new x, new square; the norm of the new x is sqrt(min(R, K)).
    """
    xp = array_module(x)
    R, K = x.shape[-2:]
    axis, count = (-1, K) if R >= K else (-2, R)
    means = xp.square(x).mean(axis=axis, keepdims=True)
    to_norm = math.sqrt(min(R, K)) / xp.maximum(xp.sqrt(count * _sum(means)), 1e-6)
    means *= to_norm * to_norm  # as if x had that norm already; the last line scales x itself
    square = square + (1 - beta_2) * (means - square)
    scale = 1 / xp.sqrt(xp.maximum(square, 1e-10))
    before, after = xp.sqrt(count * _sum(means)), xp.sqrt(count * _sum(means * scale * scale))
    return x * (scale * (to_norm * before / xp.maximum(after, 1e-10))), square


def _sum(x: Any) -> Any:
    return x.sum(axis=(-2, -1), keepdims=True)


def muon_update(
    weight: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    scalars: Sequence[Any],
    *,
    beta_2: float = 0.9,
    grad_scale: Any = None,
    factors: Any = None,
) -> None:
    """Update matrices in place: the running averages of gradient and squared step, then the weight.

    weight, gradient and mean (..., R, K), square (..., R, 1) if R >= K, else (..., 1, K). `scalars` begin with the
    momentum, learning rate and weight decay. A weight decays, by rate * decay of itself, only if the step does not
    enlarge it. `grad_scale` is as in `adamw_update`, `factors` as in `orthogonalize`.
    """
    R, K = weight.shape[-2:]
    momentum, rate, weight_decay = scalars[0], scalars[1] * math.sqrt(max(1.0, R / K)), scalars[2]
    gradient = scaled(gradient, grad_scale, mean)  # if not finite, the mean stays, and no NaN spreads
    change = gradient - mean
    change *= 1 - momentum
    mean += change
    ahead = mean - gradient  # Nesterov: apply the momentum once more
    ahead *= momentum
    ahead += gradient
    step, new_square = even_out(orthogonalize(ahead, factors=factors), square, beta_2=beta_2)
    square[...] = if_finite(grad_scale, new_square, square)
    decay = weight * (rate * weight_decay)
    decay *= step * weight >= 0
    step *= rate
    step += decay
    weight[...] = if_finite(grad_scale, weight - step, weight)


def update_matrices(
    data: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    scalars: Sequence[Any],
    *,
    spans: Sequence[slice],
    starts: Any,
    compute_weights: Any = None,
    **options: Any,
) -> None:
    """Update the N matrices at these spans of the flat data by the flat gradient, as `muon_update` does with `options`.

    mean (N, R, K); square (N, R, 1) if R >= K, else (N, 1, K). `compute_weights`, unless None, receive the new weights.
    `starts` (N) says where the spans begin, to a kernel, in memory that it can read.
    """
    weights, gradients = ([flat[span].reshape(mean.shape[1:]) for span in spans] for flat in (data, gradient))
    if len(spans) == 1:
        muon_update(weights[0], gradients[0], mean[0], square[0], scalars, **options)
    else:
        xp = array_module(data)
        stack = xp.stack(weights)
        muon_update(stack, xp.stack(gradients), mean, square, scalars, **options)
        for weight, updated in zip(weights, stack, strict=True):
            weight[...] = updated
    if compute_weights is not None:
        for span in spans:
            compute_weights[span] = data[span].astype(compute_weights.dtype)


Work = Callable[[], None]


def run_serially(pieces: Sequence[Work]) -> None:
    """Do independent pieces of work in sequence."""
    for work in pieces:
        work()


@dataclass(frozen=True)
class _Part:
    """Parameters that are updated together: their spans of the flat buffers, where these begin as an array of the back
    end's, and their optimiser state.

    Either one parameter of an AdamW group, or a stack of matrices of one shape, without a group, for Muon.
    """

    group: Group | None
    names: tuple[str, ...]
    spans: tuple[slice, ...]
    starts: Any
    mean: Any
    square: Any


class Muon(Optimizer):
    """Update the parameters of `groups` by AdamW, at their groups' rates, and all others, which are matrices, by Muon.

    `momentum` and `weight_decay` are Muon's schedules; `epsilon` is AdamW's. The state is a mean gradient for each
    weight and a mean square: one per weight for AdamW, one per row or column for Muon. `factors` is the type to which
    the factors of Muon's products are rounded (None: not at all). `together` runs the updates of all parameters,
    perhaps in several threads. On a device, matrices of one shape form a stack, to save kernel launches; a CPU updates
    one at a time, to keep it in its cache.
    """

    def __init__(
        self,
        parameters: Movable,
        groups: Sequence[Group],
        *,
        momentum: Schedule,
        weight_decay: Schedule,
        epsilon: float = 1e-10,
        factors: Any = None,
        together: Callable[[Sequence[Work]], None] = run_serially,
    ) -> None:
        super().__init__(parameters)
        expect("Muon: epsilon", epsilon, minimum=0)
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.epsilon = epsilon
        self.factors = factors
        self.together = together
        self.steps = 0
        self._parts: list[_Part] = []
        group_of = {name: group for group in groups for name in group.parameters}
        stacks: dict[Any, list[tuple[str, slice]]] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        start = 0
        for name, master in parameters.masters():
            span, shapes[name] = slice(start, start := start + master.size), master.shape
            group = group_of.pop(name, None)
            if group is not None:
                self._parts.append(self._part(group, [(name, span)], master.shape, master.shape))
            elif master.ndim == 2:
                alone = parameters.backend.name == "numpy"
                stacks.setdefault(name if alone else master.shape, []).append((name, span))
            else:
                raise ShapeError(f"Muon: expected matrices outside the groups, received {name} of shape {master.shape}")
        if group_of:
            raise ShapeError(f"Muon: expected groups of the model's parameters, received {', '.join(group_of)}")
        for members in stacks.values():
            R, K = shapes[members[0][0]]
            self._parts.append(self._part(None, members, (R, K), (R, 1) if R >= K else (1, K)))
        self._scalars = StepScalars(parameters, len(self._parts), ADAMW_SCALARS)

    def _part(
        self,
        group: Group | None,
        members: Sequence[tuple[str, slice]],
        shape: tuple[int, ...],
        square_shape: tuple[int, ...],
    ) -> _Part:
        xp, dtype = self.parameters.backend.xp, self.parameters.data.dtype
        names, spans = zip(*members, strict=True)
        mean, square = (xp.zeros((len(members), *each), dtype) for each in (shape, square_shape))
        starts = xp.asarray(np.array([span.start for span in spans], np.int64))
        return _Part(group, names, spans, starts, mean, square)

    def prepare(self, learning_rate: float, position: int = 0) -> None:
        """Compute each part's scalars, with momentum and decay at this position of their schedules."""
        # During its warmup, momentum follows the steps taken; a time limit may move the position ahead of them.
        momentum = self.momentum(self.steps if self.steps < MOMENTUM_WARMUP else position)
        of_matrices = momentum, learning_rate, self.weight_decay(position)
        self.steps += 1

        def scalars(group: Group | None) -> tuple[float, ...]:
            if group is None:
                return (*of_matrices, *[0.0] * (ADAMW_SCALARS - len(of_matrices)))
            rate, decay = learning_rate * group.scale, group.weight_decay
            return adamw_scalars(self.steps, rate, betas=group.betas, weight_decay=decay, epsilon=self.epsilon)

        self._scalars.set([scalars(part.group) for part in self._parts])

    def update(self, grad_scale: Any = None) -> None:
        """Update every parameter once."""

        def move(number: int, part: _Part) -> None:
            how = self._update_matrices if part.group is None else self._update_by_adamw
            how(part, self._scalars[number], grad_scale)

        self.together([functools.partial(move, *numbered) for numbered in enumerate(self._parts)])
        if self.steps % FLUSH_EVERY == 0:
            for part in self._parts:
                flush_negligible((part.mean, part.square))

    def _update_matrices(self, part: _Part, scalars: Sequence[Any], grad_scale: Any) -> None:
        parameters = self.parameters
        parameters.kernel_of(update_matrices)(
            parameters.data,
            parameters.gradient,
            part.mean,
            part.square,
            scalars,
            spans=part.spans,
            starts=part.starts,
            compute_weights=parameters.compute_weights,
            grad_scale=grad_scale,
            factors=self.factors,
        )

    def _update_by_adamw(self, part: _Part, scalars: Sequence[Any], grad_scale: Any) -> None:
        parameters, span = self.parameters, part.spans[0]
        parameters.kernel_of(adamw_update)(
            parameters.data[span],
            parameters.gradient[span],
            part.mean.ravel(),
            part.square.ravel(),
            scalars,
            decayed=part.mean.size,
            compute_weights=None if parameters.compute_weights is None else parameters.compute_weights[span],
            grad_scale=grad_scale,
        )

    def state(self) -> dict[str, np.ndarray]:
        """Return the averages, named `mean.` or `square.` and the parameter's name, and the number of steps taken."""
        return state_of(self._averages(), self.steps)

    def load(self, state: Mapping[str, np.ndarray]) -> None:
        """Load `state`. Raises CheckpointError if it does not fit."""
        self.steps = load_state(self._averages(), state)

    def _averages(self) -> dict[str, Any]:
        by_name = [(name, part, number) for part in self._parts for number, name in enumerate(part.names)]
        means = {f"mean.{name}": part.mean[number] for name, part, number in by_name}
        return means | {f"square.{name}": part.square[number] for name, part, number in by_name}
