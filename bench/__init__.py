"""Measurements against peers, and of quality. `python -m bench` lists them; results/ holds the JSON that claims cite.

step.py            tokens per second of a whole training step
decode.py          tokens per second of generation
scaling.py         how a step's time grows with context and with width
memory.py          peak resident memory of training
startup.py         seconds from a process's start to an import, to help, to the first step
ops.py             milliseconds of each op, forward and backward
quality.py         validation losses of known configurations
upstream.py        ours and karpathy/nanochat itself: losses, speed, memory at equal settings
scalar.py          the scalar engine against two forms in which textbooks write it
plan.py            what `tgc plan` predicts against what a run takes
tokenizer.py       seconds to train a BPE tokenizer, megabytes a second that it encodes
survival.py        runs that are killed, disks that are full, files that are damaged
serving/           a server under load: beside PyTorch, many streams, thousands of requests

turns.py           workers, processes of one engine each that take turns
worker.py          an engine that trains, in a process of its own
decoder.py         an engine that generates, likewise
operations.py      an engine that runs single ops, likewise
scalar_worker.py   a scalar engine that trains, likewise
upstream_worker.py ours, or upstream, that trains, likewise
upstream_report.py what its comparison says
sgemm.py           the machine's own rate of products, likewise
faults.py          calls to the operating system that fail, for survival.py
peers/             the same model in other frameworks
configurations.py  the models that are measured
record.py          how a result is written
chart.py           how it is drawn
test_regression.py whether training is slower than its last result; `pytest bench`
"""
