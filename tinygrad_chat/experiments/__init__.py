"""Ablations: the same training many times, to learn the effect of a setting.

ablation.py    a grid of settings and several seeds
planned.py     one run of it: training and result
results.py     the folder of an ablation
running.py     its runs one after another, in this process
jobs.py        several runs at once, each in its own subprocess
job.py         such a subprocess, seen from its parent
worker.py      such a subprocess, seen from inside
shares.py      each concurrent run's share of the machine
progress.py    the progress of a run
submission.py  its runs as jobs on a cluster
report.py      the table, spreadsheet and plot of an ablation
"""
