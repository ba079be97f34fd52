"""How good trained models are.

text.py         on a text: bits per byte, which compare models with different tokenizers
answers.py      at the problems of tasks
distributed.py  both by several ranks
"""
