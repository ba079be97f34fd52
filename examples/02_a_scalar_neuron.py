"""Lesson 2: a scalar neuron.

One neuron, two inputs, a bias: enough to learn OR. Training is a loop of three lines: compute the loss, ask for the
gradients, take a small step against them.
"""

from tinygrad_chat import Value

examples = [((0, 0), 0), ((0, 1), 1), ((1, 0), 1), ((1, 1), 1)]
weights, bias = [Value(0.1), Value(-0.1)], Value(0.0)


def neuron(inputs: tuple[int, int]) -> Value:
    """Return the probability of a 1: the sigmoid of the weighted sum."""
    total = sum((weight * x for weight, x in zip(weights, inputs, strict=True)), bias)
    return 1 / (1 + (-total).exp())


def loss() -> Value:
    """Return the mean surprise, -log of the probability given to the right answer."""
    surprises = [-(neuron(inputs) if target else 1 - neuron(inputs)).log() for inputs, target in examples]
    return sum(surprises, Value(0.0)) / len(surprises)


first = loss().data
for _ in range(200):
    current = loss()
    current.backward()
    for parameter in [*weights, bias]:
        parameter.data -= 1.0 * parameter.grad
        parameter.grad = 0.0

print(f"loss {first:.3f} -> {loss().data:.3f}")
for inputs, target in examples:
    print(f"{inputs} -> {neuron(inputs).data:.2f}, expected {target}")
    assert round(neuron(inputs).data) == target
