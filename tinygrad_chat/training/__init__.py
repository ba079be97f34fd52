"""One training loop for every model, engine and back end. It yields events and prints nothing; `cli` draws them.

config.py       what a user can choose, and how defaults, presets, files and flags combine
run.py          a run: everything that `config` resolves to, new or resumed
loop.py         the loop
update.py       one update of the weights: a batch's gradient, whole or in parts, and the optimiser's step
evaluation.py   loss, perplexity and bits per byte on held-out text
checkpoint.py   whole checkpoints, or none
storage.py      how a file comes to be whole or not there
run_folder.py   where a run's files stand
environment.py  what a result was made with
tracking.py     TensorBoard, trackio and Weights & Biases beside the log
ablation.py     the same training over a grid of settings and several seeds
guards/         losses that are no numbers, spikes, memory that grows
planning/       what a run will take, before it is begun
reports/        what runs leave for people
"""
