"""What guards a run.

diagnosis.py      where a loss or a gradient stopped being a number
recent_losses.py  whether a batch's loss is unlike those before it
memory.py         whether memory keeps growing
"""
