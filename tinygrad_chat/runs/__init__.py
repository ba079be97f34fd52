"""A run on disk.

finding.py        where runs are, and what a path that leads to none may have meant
records.py        the contents of its records: outcome, environment, log, timing
log.py            its log and timing files: appended line by line, checked on resuming
folder.py         the layout of its folder, and the lock on it
lookup.py         resolve a run or checkpoint by path, by name or as the newest
arrays.py         arrays in safetensors files, with checked headers
stored.py         arrays that stay in their file until they are used
checkpoint.py     checkpoints as folders, written atomically
state.py          what a checkpoint holds: saving, loading and checking it
sampling.py       the sampling settings recommended for its model
scores.py         its model's results on tasks
figures.py        facts about itself that its model can state correctly
consent.py        what this user has agreed to for a run that may come from someone else
tokenizer.py      the tokenizer of a run, or of a file
products.py       how a GPU computes its matrix products
recent_losses.py  a part of the state: how a batch's loss compares with those before it
"""
