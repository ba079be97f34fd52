"""The residual stream: what every layer of a transformer reads and adds to."""

from __future__ import annotations

from typing import Any

from tinygrad_chat import ops
from tinygrad_chat.autograd import has_kernel
from tinygrad_chat.nn.layers import LayerNorm, Norm, RMSNorm
from tinygrad_chat.tensor import Tensor

ADD_AND_NORM: dict[type[Norm], Any] = {LayerNorm: ops.add_layernorm, RMSNorm: ops.add_rmsnorm}
"""norm -> the op that adds first: (x, branch, gain, ...) -> (x + branch, the normalised sum)"""


class ResidualStream:
    """The stream x (..., C), which norms read and to which branches are added.

    The newest branch is added only when the stream is next read: where a kernel adds and normalises in one pass over
    memory, as on a GPU, `read` uses it.
    """

    def __init__(self, x: Tensor) -> None:
        self._x = x
        self._branch: Tensor | None = None

    @property
    def x(self) -> Tensor:
        """The stream with every branch added."""
        if self._branch is not None:
            self._x, self._branch = self._x + self._branch, None
        return self._x

    def read(self, norm: Norm) -> Tensor:
        """Return the normalised stream."""
        if self._branch is not None:
            add_and_norm = ADD_AND_NORM.get(type(norm))
            if add_and_norm is not None and has_kernel(add_and_norm, self._x.data):
                self._x, normalised = add_and_norm(self._x, self._branch, *norm.vectors, epsilon=norm.epsilon)
                self._branch = None
                return normalised
        return norm(self.x)

    def add(self, branch: Tensor) -> None:
        """Add the output of a layer, which has the stream's shape."""
        self._x, self._branch = self.x, branch
