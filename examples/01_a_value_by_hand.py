"""Lesson 1: a Value by hand.

A gradient says how much a result changes when an input changes a little. Here the chain rule is worked out on paper,
then by the scalar engine, and then measured by really changing the input. All three agree.
"""

from tinygrad_chat import Value

# y = tanh(a * b + c)
a, b, c = Value(0.5), Value(-1.5), Value(1.0)
y = (a * b + c).tanh()
y.backward()

# On paper: with u = a * b + c, dy/du = 1 - tanh(u)^2, and du/da = b, du/db = a, du/dc = 1.
slope = 1 - y.data**2
by_hand = {"a": slope * b.data, "b": slope * a.data, "c": slope}

# Measured: move one input by a small step and look at the result.
step = 1e-6
measured = {
    "a": (((a.data + step) * b + c).tanh().data - y.data) / step,
    "b": ((a * (b.data + step) + c).tanh().data - y.data) / step,
    "c": ((a * b + (c.data + step)).tanh().data - y.data) / step,
}

print(f"y = {y.data:.4f}")
print("input   engine    paper  measured")
for name, value in {"a": a, "b": b, "c": c}.items():
    print(f"{name:>5} {value.grad:8.4f} {by_hand[name]:8.4f} {measured[name]:9.4f}")
    assert abs(value.grad - by_hand[name]) < 1e-12
    assert abs(value.grad - measured[name]) < 1e-4
