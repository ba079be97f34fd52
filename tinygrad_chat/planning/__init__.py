"""Predict a run's time and memory before it starts.

plan.py         the prediction
measurement.py  its basis: the beginning of the run, measured in a subprocess
first_steps.py  what that subprocess does
fit.py          the largest micro-batch that fits into memory
ranks.py        a model of the time of a step with more ranks
"""
