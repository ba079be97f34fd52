"""One training loop for every model, engine and back end. It yields events and prints nothing; `cli` displays them.

facts.py       the facts that a configuration depends on: the data, opened once, and the machine
parent.py      the trained model that a run starts from, if its weights are not freshly initialised
tokens.py      the text of a run, encoded by the chosen tokenizer
build.py       the parts of a run, built from its configuration
run.py         a run: new, started from another, or resumed
refusals.py    checks that refuse a run before it starts
resumption.py  whether a resumed run is to train on, and on the same data
batches.py     the batches of its data, by number
answering.py   answers a training model gives to many questions at once
reinforcement.py  a model's own answers to a task's problems, as batches
step.py        a training step: gradient, clipping, update
graphs.py      the same step, captured as CUDA graphs and replayed
products.py    how a GPU computes its matrix products: recalled and saved
distributed.py the same step, shared by several ranks
update.py      one update of a run: batch, step, guards
loop.py        the loop
saving.py      its checkpoints, including temporary ones
events.py      the events it yields
clock.py       the time spent training
evaluation.py  loss, perplexity and bits per byte on held-out text
guards/        NaN or infinite losses, rollbacks, growing memory
"""
