"""One training loop for every model, engine and back end. It yields events and prints nothing; `cli` draws them.

config.py           what a user can choose, and how defaults, presets, files and flags combine
run.py              a run: everything that `config` resolves to, new or resumed
loop.py             the loop
evaluation.py       loss, perplexity and bits per byte on held-out text
checkpoint.py       whole checkpoints, or none
storage.py          how a file comes to be whole or not there
run_folder.py       where a run's files stand
environment.py      what a result was made with
ablation.py         the same training over a grid of settings and several seeds
ablation_report.py  the table, spreadsheet and plot of an ablation
"""
