"""One training loop for every model, engine and back end. It yields events and prints nothing; `cli` draws them.

facts.py       what a configuration follows from: the data, opened once, and the machine
parent.py      the trained model that a run starts from, where its weights are not drawn
tokens.py      its text as tokens, by the tokenizer that was asked for
build.py       the parts of a run, made as its configuration says
run.py         a run: new, started from another, or resumed
refusals.py    what it is refused for
batches.py     the batches of its data, by number
answering.py   many questions at once, and what the model answers
reinforcement.py  a model's own answers to a task's problems, as batches
step.py        a training step: gradient, clipping, update
distributed.py the same step, shared by several ranks
update.py      one update of a run: its batch, the step, what guards it
loop.py        the loop
saving.py      its checkpoints, temporary ones among them
events.py      what it tells
clock.py       the time that training takes
evaluation.py  loss, perplexity and bits per byte on held-out text
guards/        losses that are NaN or infinite, rollbacks, memory that grows
"""
