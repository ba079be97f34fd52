"""Lesson 3: write your own op, and prove it.

An op is a function over arrays that returns its result and a backward rule. The rule is proven exactly, by running the
forward over scalar Values, and by finite differences. A wrong rule does not get through.
"""

import numpy as np

from tinygrad_chat import Tensor, differentiable
from tinygrad_chat.autograd.check import WrongGradientError, check_exactly, check_numerically
from tinygrad_chat.backend import array_module


@differentiable
def swish(x):
    """x * sigmoid(x) (Ramachandran et al., arXiv:1710.05941)."""
    sigmoid = 1 / (1 + array_module(x).exp(-x))

    def backward(d_out):
        return (d_out * (sigmoid + x * sigmoid * (1 - sigmoid)),)

    return x * sigmoid, backward


@differentiable
def careless_swish(x):
    """The same, by someone who forgot the product rule."""
    sigmoid = 1 / (1 + array_module(x).exp(-x))

    def backward(d_out):
        return (d_out * sigmoid,)

    return x * sigmoid, backward


points = np.random.default_rng(0).normal(size=(3, 4))
print(f"swish against Values: worst difference {check_exactly(swish, points):.1e}")
print(f"swish against finite differences: {check_numerically(swish, points):.1e}")

try:
    check_exactly(careless_swish, points)
except WrongGradientError as error:
    print(f"careless_swish is refused: {error}")
else:
    raise AssertionError("a wrong rule was let through")

# It works on Tensors like any op that ships.
x = Tensor(points)
swish(x).sum().backward()
print(f"gradient of the first row: {x.grad[0].round(3)}")
