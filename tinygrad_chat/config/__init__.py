"""The options of a run, and how a user's choices become one configuration.

groups.py        the options, in groups, with their defaults and help texts; the model's are in models/options.py
compute.py       the options of what computes, and of how it computes a training step
objective.py     the options of the training objective
record.py        all groups in one frozen record, and its forms in files
resolve.py       derive every setting from choices and facts: pure, without NumPy, disk, network or device
defaults.py      defaults that depend on the model, engine or optimiser
scaling_laws.py  nanochat's scaling laws: derive every other setting from a depth
files.py         TOML files, and the presets in presets/
"""
