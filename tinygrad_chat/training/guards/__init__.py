"""What guards a run.

diagnosis.py        where a loss or a gradient became NaN or infinite
watched_scalars.py  the same, of a scalar model
rollback.py         going on from an earlier checkpoint
memory.py           whether memory keeps growing
"""
