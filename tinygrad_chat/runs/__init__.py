"""What a run is on disk.

finding.py        where runs are, and what a path that leads to none may have meant
records.py        what its records hold: outcome, environment, log, timing
log.py            the log and the timing beside it: added to line by line, checked where a run goes on
folder.py         where each of its files stands, who may write there
lookup.py         which run or checkpoint is meant, by path, by name or as the newest
arrays.py         arrays in safetensors files, whose headers are checked
stored.py         an array that stays in its file until it is used
checkpoint.py     checkpoints as folders: whole, or not there
state.py          what a checkpoint holds; it saves, loads and checks itself
sampling.py       how those who made its model would have tokens drawn
scores.py         how its model did in tasks
figures.py        what its model can say of itself, and be right
consent.py        what this user has agreed to for a run that may be from somebody else
tokenizer.py      the tokenizer of a run, or of a file
recent_losses.py  a part of that: how a batch's loss compares with those before it
"""
