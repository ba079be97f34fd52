"""What guards a run.

diagnosis.py  where a loss or a gradient became NaN or infinite
rollback.py   going on from an earlier checkpoint
memory.py     whether memory keeps growing
"""
