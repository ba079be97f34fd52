"""What a run will take, before it is begun.

plan.py         the prediction
measurement.py  what it is made from: the beginning of the run, in a process of its own
first_steps.py  what that process does
fit.py          the largest part of a batch that fits into memory
ranks.py        how long a step takes with more ranks: a model
"""
