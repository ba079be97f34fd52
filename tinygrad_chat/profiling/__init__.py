"""Where the time of a training step goes.

profile.py    steps of a run, watched; a row for each op, and what holds it back
recorder.py   the watcher: spans of the device's time
costs.py      operations and bytes that an op cannot do without
trace.py      a step as a Chrome trace
"""
