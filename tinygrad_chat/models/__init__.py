"""The language models, and the table and protocol that make them interchangeable.

options.py     what a user can choose about a model's shape
size.py        parameters, operations and least memory, as closed formulas
protocol.py    what training and sampling ask of a model
gpt.py         the GPT of Tensors
blocks.py      what it is made of: attention, feed-forward, block
initialisation.py  how its weights begin
nanochat.py    what makes a GPT karpathy/nanochat's
scalar_gpt.py  the same GPT, one number at a time; the whole of it in one file
scalar.py      the scalar GPT behind the protocol
table.py       bigram and mini-gpt by name, and the engines
"""
