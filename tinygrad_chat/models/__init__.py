"""The language models, and the protocol that makes them interchangeable.

options.py     what a user can choose about a model's shape
parameter_table.py  every parameter: its shape, its role, how it begins
initialisation.py   what it can begin with
size.py        parameters and operations, read off the table
memory.py      what a model, and a step of its training, take at least
protocol.py    what training and sampling ask of a model
base.py        what models of Tensors share, and what a model of one's own begins with
gpt.py         the GPT of Tensors
blocks.py      what it is made of: attention, feed-forward, block
rotary_scaling.py   rotary pairs slowed down, for a longer context
weights.py     its weights: drawn, checked, made into layers
lora.py        adapters beside a trained model's weights, and what both are together
nanochat.py    what makes a GPT karpathy/nanochat's
scalar_gpt.py  the same GPT, one number at a time; the whole of it in one file
scalar.py      the scalar GPT behind the protocol
engines.py     the engines by name
"""
