"""Evaluation of trained models.

text.py         on a text: in bits per byte, which can be compared between tokenizers
answers.py      on the problems of tasks
distributed.py  both, on several ranks
"""
