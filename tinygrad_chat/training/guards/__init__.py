"""Guards of a run.

diagnosis.py        find where a loss or a gradient became NaN or infinite
watched_scalars.py  the same for a scalar model
rollback.py         continue from an earlier checkpoint
memory.py           check whether memory keeps growing
"""
