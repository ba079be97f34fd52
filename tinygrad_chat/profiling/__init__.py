"""Profile where the time of a training step goes.

profile.py    profiled steps of a run: a row for each op, and the bottleneck
recorder.py   the watcher: spans of device time
costs.py      the least operations and bytes that an op needs
trace.py      a step as a Chrome trace
"""
