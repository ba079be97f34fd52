"""What a user can choose about a run, and how the choices become one configuration.

groups.py        the options, in groups, with their defaults and help texts; those of the model are in models/options.py
objective.py     those of what is learned
record.py        the groups composed in one frozen record, and its forms in files
resolve.py       from choices and facts to every setting: pure, without NumPy, disk, network or device
defaults.py      what differs for a model, an engine or an optimiser
scaling_laws.py  nanochat's: from a depth, every other setting
files.py         TOML files, and the presets in presets/
"""
