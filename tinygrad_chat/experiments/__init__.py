"""The same training many times, to learn what a setting does.

ablation.py    a grid of settings and several seeds
planned.py     one run of it: how it is trained, what it came to
results.py     the folder of an ablation
running.py     its runs one after another, in this process
jobs.py        several at once, each in a process of its own
job.py         such a process, as who has started it sees it
worker.py      such a process
shares.py      what each of several has of the machine
progress.py    how far a run has come
submission.py  its runs as jobs of a cluster
report.py      the table, spreadsheet and plot of an ablation
"""
