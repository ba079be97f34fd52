"""The residual stream: what every layer of a transformer reads and adds to."""

from __future__ import annotations

from typing import Any

from tinygrad_chat import ops
from tinygrad_chat.autograd import has_kernel
from tinygrad_chat.nn.layers import LayerNorm, Norm, RMSNorm
from tinygrad_chat.tensor import Tensor

ADD_AND_NORM: dict[type[Norm], Any] = {LayerNorm: ops.add_layernorm, RMSNorm: ops.add_rmsnorm}
"""norm -> the op that adds first: (x, branch, gain, ...) -> x + branch, and that normalised"""


class ResidualStream:
    """x (..., C), which norms read and branches are added to.

    The newest branch is not added before the stream is read again: where there is a kernel that adds and normalises in
    one pass over memory, as on a GPU, reading with a norm takes that.
    """

    def __init__(self, x: Tensor) -> None:
        self._x = x
        self._branch: Tensor | None = None

    @property
    def x(self) -> Tensor:
        """The stream as it is, with every branch added."""
        if self._branch is not None:
            self._x, self._branch = self._x + self._branch, None
        return self._x

    def read(self, norm: Norm) -> Tensor:
        """Return the stream, normalised."""
        if self._branch is not None:
            add_and_norm = ADD_AND_NORM.get(type(norm))
            if add_and_norm is not None and has_kernel(add_and_norm, self._x.data):
                self._x, normalised = add_and_norm(self._x, self._branch, *norm.vectors, epsilon=norm.epsilon)
                self._branch = None
                return normalised
        return norm(self.x)

    def add(self, branch: Tensor) -> None:
        """Add the result of a layer, of the stream's own shape."""
        self._x, self._branch = self.x, branch
