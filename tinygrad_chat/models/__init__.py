"""The language models, and the protocol that makes them interchangeable.

options.py     what a user can choose about a model's shape
parameter_table.py  every parameter: its shape, role and initialiser
initialisation.py   the initialisers
size.py        the number of parameters and FLOPs, computed from the table
memory.py      the least memory that a model and a training step need
protocol.py    the interface that training and sampling expect of a model
base.py        the base class of tensor models, and of a user's own model
gpt.py         the tensor GPT
blocks.py      its parts: attention, feed-forward, block
captured_steps.py   steps of one more token, captured as CUDA graphs and replayed
rotary_scaling.py   rotary frequencies scaled down for a longer context
weights.py     its weights: drawn, checked, made into layers
lora.py        LoRA adapters: added to a trained model, and merged into it
nanochat.py    the settings of karpathy/nanochat
scalar_gpt.py  the same GPT, one number at a time, complete in one file
scalar.py      the scalar GPT behind the protocol
engines.py     the engines by name
"""
