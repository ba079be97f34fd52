"""One training loop for every model, engine and back end. It yields events and prints nothing; `cli` draws them.

config.py      what a user can choose, and how defaults, presets, files and flags combine
run.py         a run: everything that `config` resolves to, new or resumed
loop.py        the loop
evaluation.py  loss, perplexity and bits per byte on held-out text
checkpoint.py  whole checkpoints, or none
run_folder.py  where a run's files stand
"""
